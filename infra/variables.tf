# What every deployment decides.

variable "name" {
  description = "Begins the name of every resource. One reconciler per name, account and region."
  type        = string
  default     = "tallygate"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 25 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen: S3 bucket names are made from it."
  }
}

variable "tags" {
  description = "Tags of every resource that takes tags, beside those of the provider's default_tags."
  type        = map(string)
  default     = {}
}

variable "edge_url" {
  description = "The gateway's address without a path, for example https://gateway.example.com. The reconciler reads usage from it and sends corrections to it."
  type        = string

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$", var.edge_url))
    error_message = "edge_url must be https:// and a host, without a path, a query or a slash at its end: usage and corrections do not travel in the clear."
  }
}

variable "lambda_zip" {
  description = "The Lambda's package, as `make lambda` builds it: build/reconciler-arm64.zip."
  type        = string

  validation {
    condition     = fileexists(var.lambda_zip)
    error_message = "lambda_zip names no file: build the package with `make lambda`, then give its path, seen from where terraform runs (an absolute path is safest)."
  }
}

variable "workspaces" {
  description = "Workspaces (`ws_...`) to reconcile. Empty: all that the edge has; then every Athena query must name one workspace."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.workspaces : can(regex("^[A-Za-z0-9_-]{1,64}$", id))])
    error_message = "workspaces must be ids such as ws_acme: letters, digits, _ and -, at most 64 of them. They become part of S3 keys."
  }

  validation {
    condition     = length(distinct(var.workspaces)) == length(var.workspaces)
    error_message = "workspaces names one workspace twice: its days would be reconciled twice."
  }
}

# Sources of bills.

variable "provider_secrets" {
  description = "Providers whose admin credential the reconciler reads: a secret <name>/provider/<provider> is made for each. Put the values in afterwards (README): they never pass through Terraform."
  type        = set(string)
  default     = ["anthropic", "openai"]

  validation {
    condition     = alltrue([for provider in var.provider_secrets : can(regex("^[a-z][a-z0-9_]{1,39}$", provider))])
    error_message = "provider_secrets must be connector names such as openai, anthropic, openrouter, azure, vercel, mongodb_atlas, github_copilot, cursor, claude_code: lower-case letters, digits and _."
  }
}

variable "enable_cost_explorer" {
  description = "Let the reconciler ask AWS Cost Explorer (Bedrock's bill and the harness costs). Each page of an answer costs $0.01."
  type        = bool
  default     = false
}

variable "max_paid_calls_per_run" {
  description = "Paid Cost Explorer calls that one run may make. The run stops asking there, and says so in its report."
  type        = number
  default     = 100

  validation {
    condition     = var.max_paid_calls_per_run >= 0 && var.max_paid_calls_per_run <= 10000 && floor(var.max_paid_calls_per_run) == var.max_paid_calls_per_run
    error_message = "max_paid_calls_per_run must be a whole number from 0 to 10000 (at $0.01 a call)."
  }
}

variable "paid_calls_alarm_per_day" {
  description = "An alarm goes off when the reconciler counts more paid calls than this in a day."
  type        = number
  default     = 300

  validation {
    condition     = var.paid_calls_alarm_per_day >= 1 && floor(var.paid_calls_alarm_per_day) == var.paid_calls_alarm_per_day
    error_message = "paid_calls_alarm_per_day must be a whole number of at least 1."
  }
}

variable "cost_allocation_tag" {
  description = "The cost-allocation tag (activated in the billing console) that says whose a harness cost is."
  type        = string
  default     = "app"

  validation {
    condition     = length(var.cost_allocation_tag) >= 1 && length(var.cost_allocation_tag) <= 128
    error_message = "cost_allocation_tag must be a tag key of 1 to 128 characters."
  }
}

variable "settings" {
  description = "More settings of the reconciler as environment variables, beside those that this module sets itself. Never a secret: they are in the Terraform state."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.settings) : can(regex("^TALLYGATE_[A-Z0-9_]+$", key))])
    error_message = "settings takes names that begin with TALLYGATE_ only: capitals, digits and _."
  }

  validation {
    condition     = alltrue([for key in keys(var.settings) : !can(regex("(KEY|TOKEN|PASSWORD|CREDENTIAL|_SECRET)$", key))])
    error_message = "settings seems to hold a credential: put it in Secrets Manager (provider_secrets) instead; settings are readable in the state and in the Lambda console."
  }

  validation {
    condition = length(setintersection(keys(var.settings), [
      "TALLYGATE_BUCKET", "TALLYGATE_COST_TAG", "TALLYGATE_EDGE_SECRET_ARN", "TALLYGATE_EDGE_URL", "TALLYGATE_LOOKBACK_DAYS",
      "TALLYGATE_MAX_PAID_CALLS", "TALLYGATE_PROVIDER_SECRETS", "TALLYGATE_TABLE", "TALLYGATE_WORKSPACES",
    ])) == 0
    error_message = "settings repeats a setting that has a variable of its own: use that variable."
  }
}

# The nightly run.

variable "schedule" {
  description = "Slots of the night. The first does the work; where it runs into the Lambda's time limit, the next goes on; a slot with nothing left ends at once."
  type        = string
  default     = "cron(0/15 2-5 * * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)\\(.+\\)$", var.schedule))
    error_message = "schedule must be an EventBridge Scheduler expression: cron(0/15 2-5 * * ? *) or rate(15 minutes)."
  }
}

variable "schedule_time_zone" {
  description = "The time zone of the schedule. Days in the books are UTC days in any case."
  type        = string
  default     = "UTC"

  validation {
    condition     = can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2})$", var.schedule_time_zone))
    error_message = "schedule_time_zone must be a name of the IANA database, such as UTC or Europe/Berlin."
  }
}

variable "schedule_enabled" {
  description = "False keeps the schedule but does not fire it: for the first run by hand, or to stop the nights for a while."
  type        = bool
  default     = true
}

variable "lookback_days" {
  description = "Days that each night looks at again: providers change their bills for weeks."
  type        = number
  default     = 35

  validation {
    condition     = var.lookback_days >= 1 && var.lookback_days <= 400 && floor(var.lookback_days) == var.lookback_days
    error_message = "lookback_days must be a whole number from 1 to 400. Below 35, late changes of last month's bill are missed."
  }
}

# The Lambda.

variable "memory_mb" {
  description = "The Lambda's memory, which also sets its share of CPU: 1769 MB is one whole vCPU."
  type        = number
  default     = 1769

  validation {
    condition     = var.memory_mb >= 256 && var.memory_mb <= 10240 && floor(var.memory_mb) == var.memory_mb
    error_message = "memory_mb must be a whole number from 256 to 10240."
  }
}

variable "timeout_seconds" {
  description = "The Lambda's time limit. The reconciler checkpoints a minute before it."
  type        = number
  default     = 900

  validation {
    condition     = var.timeout_seconds >= 120 && var.timeout_seconds <= 900 && floor(var.timeout_seconds) == var.timeout_seconds
    error_message = "timeout_seconds must be a whole number from 120 to 900: the last minute is kept for the checkpoint."
  }
}

variable "scratch_mb" {
  description = "The Lambda's /tmp, where usage is sorted on disk and exports are written before they are uploaded."
  type        = number
  default     = 4096

  validation {
    condition     = var.scratch_mb >= 512 && var.scratch_mb <= 10240 && floor(var.scratch_mb) == var.scratch_mb
    error_message = "scratch_mb must be a whole number from 512 to 10240."
  }
}

variable "log_level" {
  description = "The least severe level that the reconciler logs: TRACE, DEBUG, INFO, WARN or ERROR. Its metrics are printed in any case."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"], var.log_level)
    error_message = "log_level must be TRACE, DEBUG, INFO, WARN or ERROR."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 400

  validation {
    condition     = contains([365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's terms of at least a year: 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "permissions_boundary_arn" {
  description = "A permissions boundary for the roles, where your organisation asks for one."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of an IAM policy, or null."
  }
}

# The data.

variable "table_max_write_units" {
  description = "A brake on the ledger table's cost: more write request units a second than this are throttled, and the run goes on more slowly. -1 takes the brake off."
  type        = number
  default     = 4000

  validation {
    condition     = var.table_max_write_units == -1 || (var.table_max_write_units >= 1 && floor(var.table_max_write_units) == var.table_max_write_units)
    error_message = "table_max_write_units must be a whole number of at least 1, or -1 for no limit."
  }
}

variable "table_max_read_units" {
  description = "The same brake for read request units a second."
  type        = number
  default     = 4000

  validation {
    condition     = var.table_max_read_units == -1 || (var.table_max_read_units >= 1 && floor(var.table_max_read_units) == var.table_max_read_units)
    error_message = "table_max_read_units must be a whole number of at least 1, or -1 for no limit."
  }
}

variable "table_class" {
  description = "The ledger table's class: STANDARD, or STANDARD_INFREQUENT_ACCESS where what it keeps costs more than what it writes (README). Can be changed twice in 30 days."
  type        = string
  default     = "STANDARD"

  validation {
    condition     = contains(["STANDARD", "STANDARD_INFREQUENT_ACCESS"], var.table_class)
    error_message = "table_class must be STANDARD or STANDARD_INFREQUENT_ACCESS."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the ledger table. Turn it off only to take everything down."
  type        = bool
  default     = true
}

variable "object_lock_days" {
  description = "Days for which S3 Object Lock (governance mode) keeps every object version from being deleted. 0: no Object Lock. Can be turned on for an existing bucket, but never off again."
  type        = number
  default     = 0

  validation {
    condition     = var.object_lock_days >= 0 && var.object_lock_days <= 3650 && floor(var.object_lock_days) == var.object_lock_days
    error_message = "object_lock_days must be a whole number from 0 (off) to 3650."
  }
}

variable "raw_archive_after_days" {
  description = "After how many days a provider's raw answers move to Glacier Instant Retrieval: still readable at once, at a sixth of the price."
  type        = number
  default     = 120

  validation {
    condition     = var.raw_archive_after_days >= 90 && floor(var.raw_archive_after_days) == var.raw_archive_after_days
    error_message = "raw_archive_after_days must be a whole number of at least 90: they move to Infrequent Access after 45 days, and each of the two classes charges for a minimum time."
  }
}

variable "athena_scan_limit_gb" {
  description = "A query that reads more than this is stopped. Athena charges by what it reads."
  type        = number
  default     = 100

  validation {
    condition     = var.athena_scan_limit_gb >= 1 && var.athena_scan_limit_gb <= 100000 && floor(var.athena_scan_limit_gb) == var.athena_scan_limit_gb
    error_message = "athena_scan_limit_gb must be a whole number from 1 to 100000."
  }
}

variable "export_first_day" {
  description = "The first day with exports: Athena looks at no day before it."
  type        = string
  default     = "2026-01-01"

  validation {
    condition     = can(regex("^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$", var.export_first_day)) && can(timeadd("${var.export_first_day}T00:00:00Z", "0s"))
    error_message = "export_first_day must be a day, YYYY-MM-DD."
  }
}

# Alarms.

variable "alarm_emails" {
  description = "Addresses that get the alarms. Each must confirm by mail. More receivers can subscribe to the topic in the outputs."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "alarm_emails must be e-mail addresses."
  }
}

variable "no_run_hours" {
  description = "An alarm goes off when no run came to an end for so many hours. Nights that take hours themselves need more than the default."
  type        = number
  default     = 26

  validation {
    condition     = var.no_run_hours >= 25 && var.no_run_hours <= 168 && floor(var.no_run_hours) == var.no_run_hours
    error_message = "no_run_hours must be a whole number from 25 (one night and an hour) to 168 (the longest that CloudWatch looks back)."
  }
}

variable "unmetered_alarm_usd" {
  description = "An alarm goes off when a run finds more usage than this, in USD, that the gateway never saw."
  type        = number
  default     = 0

  validation {
    condition     = var.unmetered_alarm_usd >= 0
    error_message = "unmetered_alarm_usd must not be negative."
  }
}

variable "variance_alarm_usd" {
  description = "An alarm goes off when the bills differ from the estimates by more than this, in USD, in either direction."
  type        = number
  default     = 100

  validation {
    condition     = var.variance_alarm_usd > 0
    error_message = "variance_alarm_usd must be above 0: estimates and bills always differ by a little rounding."
  }
}
