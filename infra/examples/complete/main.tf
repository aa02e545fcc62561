# A whole deployment: copy this folder, change the values, add a backend.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The state names every resource but holds no secret. Keep it in a bucket of its own, with locking:
  # backend "s3" {
  #   bucket       = "acme-terraform-state"
  #   key          = "tallygate/reconciler.tfstate"
  #   region       = "eu-central-1"
  #   encrypt      = true
  #   use_lockfile = true
  # }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      environment = "production"
      owner       = "platform"
    }
  }
}

variable "region" {
  description = "Where the reconciler runs."
  type        = string
  default     = "eu-central-1"
}

variable "lambda_zip" {
  description = "The package of `make lambda`."
  type        = string
  default     = "../../../build/reconciler-arm64.zip"
}

module "reconciler" {
  source = "../.."

  name       = "tallygate"
  edge_url   = "https://gateway.example.com"
  lambda_zip = var.lambda_zip
  workspaces = ["ws_acme"]

  provider_secrets = ["anthropic", "openai", "openrouter"]

  # Bedrock and the harness costs, at most 50 paid calls a run: half a dollar.
  enable_cost_explorer   = true
  max_paid_calls_per_run = 50
  cost_allocation_tag    = "app"

  schedule_time_zone = "Europe/Berlin"

  # Raw answers and exports cannot be deleted for seven years, not even by an administrator without a special permission.
  object_lock_days = 2555

  alarm_emails        = ["finops@example.com"]
  unmetered_alarm_usd = 0
  variance_alarm_usd  = 50
}

output "function_name" {
  description = "The Lambda, for the first run by hand."
  value       = module.reconciler.function_name
}

output "inbox" {
  description = "Where bills are dropped."
  value       = module.reconciler.inbox
}

output "edge_secret_arn" {
  description = "The secret shared with the gateway: put its value in by hand."
  value       = module.reconciler.edge_secret_arn
}

output "provider_secret_arns" {
  description = "The providers' credentials: put their values in by hand."
  value       = module.reconciler.provider_secret_arns
}
