# The Lambda, its log and the queue for events that failed.

locals {
  environment = merge(var.settings, {
    RUST_LOG                 = lower(var.log_level)
    TALLYGATE_BUCKET         = local.bucket_name
    TALLYGATE_COST_TAG       = var.cost_allocation_tag
    TALLYGATE_EDGE_URL       = var.edge_url
    TALLYGATE_LOOKBACK_DAYS  = tostring(var.lookback_days)
    TALLYGATE_MAX_PAID_CALLS = tostring(var.enable_cost_explorer ? var.max_paid_calls_per_run : 0)
    TALLYGATE_TABLE          = local.table_name
    TALLYGATE_WORKSPACES     = join(",", var.workspaces)
  })
}

resource "aws_lambda_function" "reconciler" {
  # checkov:skip=CKV_AWS_117: It calls providers and the gateway on the internet; a VPC would only add a NAT gateway's price.
  # checkov:skip=CKV_AWS_272: The package is built and uploaded by whoever applies this; signing it would prove no more.
  function_name = local.function_name
  description   = "Pulls what providers billed, explains and allocates every difference, corrects the gateway"
  role          = aws_iam_role.reconciler.arn

  filename         = var.lambda_zip
  source_code_hash = filebase64sha256(var.lambda_zip)
  architectures    = ["arm64"]
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  memory_size      = var.memory_mb
  timeout          = var.timeout_seconds
  kms_key_arn      = aws_kms_key.books.arn
  tags             = local.tags

  # One run at a time. The lease in the ledger would hold a second one back; this also saves its price.
  reserved_concurrent_executions = 1

  ephemeral_storage {
    size = var.scratch_mb
  }

  environment {
    variables = merge(local.environment, {
      TALLYGATE_EDGE_SECRET_ARN  = aws_secretsmanager_secret.edge.arn
      TALLYGATE_PROVIDER_SECRETS = jsonencode({ for provider, secret in aws_secretsmanager_secret.provider : provider => secret.arn })
    })
  }

  dead_letter_config {
    target_arn = aws_sqs_queue.failed.arn
  }

  logging_config {
    log_format = "JSON"
    # Nothing is filtered here: a line of metrics has no level, and must not get lost. RUST_LOG filters at the source.
    application_log_level = "TRACE"
    system_log_level      = "INFO"
    log_group             = aws_cloudwatch_log_group.reconciler.name
  }

  tracing_config {
    mode = "Active"
  }

  # The first event may come at once: what it needs must be there.
  depends_on = [
    aws_iam_role_policy.books,
    aws_iam_role_policy.key,
    aws_iam_role_policy.runtime,
    aws_iam_role_policy.secrets,
  ]
}

# A failed slot is not repeated on the spot: the next slot goes on from the checkpoint. What waits longer than an hour for
# the one before it goes to the queue of failed events.
resource "aws_lambda_function_event_invoke_config" "reconciler" {
  function_name                = aws_lambda_function.reconciler.function_name
  maximum_event_age_in_seconds = 3600
  maximum_retry_attempts       = 0
}

resource "aws_cloudwatch_log_group" "reconciler" {
  name              = local.log_group
  kms_key_id        = aws_kms_key.books.arn
  retention_in_days = var.log_retention_days
  tags              = local.tags
}

resource "aws_sqs_queue" "failed" {
  name                      = local.dlq_name
  kms_master_key_id         = aws_kms_key.books.arn
  message_retention_seconds = 1209600
  tags                      = local.tags
}

resource "aws_sqs_queue_policy" "failed" {
  queue_url = aws_sqs_queue.failed.id
  policy    = data.aws_iam_policy_document.failed.json
}

data "aws_iam_policy_document" "failed" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [local.dlq_arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
