# What the plan must say. The real provider plans, without an account and without the network: credentials are not looked
# at, and the one call that a plan would make is answered here.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "111122223333" }
}

variables {
  edge_url = "https://gateway.example.com"
  # Any file stands for the package: nothing is uploaded by a plan.
  lambda_zip = "./tests/plan.tftest.hcl"
}

run "lambda" {
  command = plan

  assert {
    condition     = aws_lambda_function.reconciler.architectures == tolist(["arm64"]) && aws_lambda_function.reconciler.runtime == "provided.al2023"
    error_message = "make lambda builds for arm64 and provided.al2023."
  }

  assert {
    condition     = aws_lambda_function.reconciler.reserved_concurrent_executions == 1
    error_message = "One run at a time."
  }

  assert {
    condition     = aws_lambda_function.reconciler.timeout == 900 && aws_lambda_function.reconciler.tracing_config[0].mode == "Active"
    error_message = "15 minutes, traced."
  }

  assert {
    condition     = aws_lambda_function.reconciler.logging_config[0].log_format == "JSON" && aws_lambda_function.reconciler.logging_config[0].application_log_level == "TRACE"
    error_message = "Log lines are JSON, and the platform filters none: metrics are lines without a level."
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.reconciler.maximum_retry_attempts == 0
    error_message = "The next slot goes on; the platform does not repeat a failed one."
  }

  assert {
    condition = alltrue([
      for key, value in {
        TALLYGATE_BUCKET         = "tallygate-books-111122223333-eu-central-1"
        TALLYGATE_COST_TAG       = "app"
        TALLYGATE_EDGE_URL       = "https://gateway.example.com"
        TALLYGATE_LOOKBACK_DAYS  = "35"
        TALLYGATE_MAX_PAID_CALLS = "0"
        TALLYGATE_TABLE          = "tallygate-ledger"
        TALLYGATE_WORKSPACES     = ""
        RUST_LOG                 = "info"
      } : local.environment[key] == value
    ])
    error_message = "The Lambda's settings."
  }
}

run "schedule" {
  command = plan

  assert {
    condition     = aws_scheduler_schedule.night.schedule_expression == "cron(0/15 2-5 * * ? *)" && aws_scheduler_schedule.night.schedule_expression_timezone == "UTC"
    error_message = "Slots of a quarter of an hour."
  }

  assert {
    condition     = aws_scheduler_schedule.night.target[0].retry_policy[0].maximum_retry_attempts == 5
    error_message = "What cannot be started is tried again five times."
  }

  assert {
    condition     = jsondecode(aws_scheduler_schedule.night.target[0].input) == { command = "night", scheduled_at = "<aws.scheduler.scheduled-time>" }
    error_message = "The event says which command and for when."
  }

  assert {
    condition     = strcontains(aws_scheduler_schedule.night.target[0].input, "<aws.scheduler.scheduled-time>")
    error_message = "Scheduler replaces its keyword only where it stands unescaped."
  }
}

run "ledger" {
  command = plan

  assert {
    condition     = aws_dynamodb_table.ledger.hash_key == "pk" && aws_dynamodb_table.ledger.range_key == "sk" && aws_dynamodb_table.ledger.billing_mode == "PAY_PER_REQUEST"
    error_message = "String keys pk and sk, on demand."
  }

  assert {
    condition     = aws_dynamodb_table.ledger.point_in_time_recovery[0].enabled && aws_dynamodb_table.ledger.deletion_protection_enabled && aws_dynamodb_table.ledger.server_side_encryption[0].enabled
    error_message = "Recoverable, protected, encrypted with our key."
  }

  assert {
    condition     = aws_dynamodb_table.ledger.on_demand_throughput[0].max_write_request_units == 4000
    error_message = "The brake on writes."
  }
}

run "nobody_deletes" {
  command = plan

  # Every action that the Lambda's role allows, of the policies that a plan knows whole.
  assert {
    condition = length([
      for action in flatten([
        for policy in [data.aws_iam_policy_document.books, data.aws_iam_policy_document.runtime, data.aws_iam_policy_document.secrets] : [
          for statement in policy.statement : statement.actions if statement.effect != "Deny"
        ]
      ]) : action if can(regex("\\*|Delete|Batch|Scan|PartiQL|Transact", action))
    ]) == 0
    error_message = "The reconciler may not delete, write in batches, scan, or do anything by wildcard."
  }

  assert {
    condition = alltrue([
      for action in ["dynamodb:DeleteItem", "dynamodb:BatchWriteItem", "s3:DeleteObject", "s3:DeleteObjectVersion"] :
      contains(flatten([for statement in data.aws_iam_policy_document.books.statement : statement.actions if statement.effect == "Deny"]), action)
    ])
    error_message = "Deleting is refused outright."
  }

  # By name: which keys UpdateItem reaches, and which attributes where not all.
  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.books.json).Statement : statement.Sid => [
        statement.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"],
        try(statement.Condition["ForAllValues:StringEquals"]["dynamodb:Attributes"], null),
        statement.Condition["Null"],
      ] if statement.Action == "dynamodb:UpdateItem"
      } == {
      ChangeRunsAndCounters = [["N#*", "R#*"], null, { "dynamodb:LeadingKeys" = "false" }]
      NoteANewerPull = [
        "L#*", ["pk", "rev_", "seen_", "sk"], { "dynamodb:LeadingKeys" = "false", "dynamodb:Attributes" = "false" },
      ]
    }
    error_message = "UpdateItem changes runs and counters, and of a revision only the newest pull seen."
  }

  assert {
    condition = one([
      for statement in jsondecode(data.aws_iam_policy_document.books.json).Statement :
      statement.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] if statement.Action == "dynamodb:PutItem"
    ]) == ["K#*", "L#*", "R#*", "T#*"]
    error_message = "PutItem is allowed once, for the ledger's own keys."
  }
}

run "objects" {
  command = plan

  assert {
    condition     = aws_s3_bucket_public_access_block.books.block_public_acls && aws_s3_bucket_public_access_block.books.block_public_policy && aws_s3_bucket_public_access_block.books.ignore_public_acls && aws_s3_bucket_public_access_block.books.restrict_public_buckets
    error_message = "The books are private."
  }

  assert {
    condition     = aws_s3_bucket_versioning.books.versioning_configuration[0].status == "Enabled"
    error_message = "The books are versioned."
  }

  assert {
    condition = alltrue([
      for sid in ["TlsOnly", "WrittenOnce", "NeverDeleted", "NoOtherKey"] :
      contains([for statement in data.aws_iam_policy_document.bucket.statement : statement.sid if statement.effect == "Deny"], sid)
    ])
    error_message = "TLS only, written once, never deleted, our key only."
  }

  assert {
    condition = one([
      for statement in data.aws_iam_policy_document.bucket.statement : statement.resources if statement.sid == "WrittenOnce"
      ]) == toset([
      for prefix in ["doctor", "events", "export", "export-list", "pull", "raw", "report", "rows", "sorted", "told"] :
      "arn:aws:s3:::tallygate-books-111122223333-eu-central-1/${prefix}/*"
    ])
    error_message = "What the reconciler writes is written once; the inbox and its configuration are not held to it."
  }

  assert {
    condition     = length(aws_s3_bucket_object_lock_configuration.books) == 0
    error_message = "Object Lock is off unless asked for."
  }
}

run "object_lock" {
  command = plan

  variables {
    object_lock_days = 2555
  }

  assert {
    condition     = aws_s3_bucket_object_lock_configuration.books[0].rule[0].default_retention[0].days == 2555 && aws_s3_bucket_object_lock_configuration.books[0].rule[0].default_retention[0].mode == "GOVERNANCE"
    error_message = "Object Lock as long as asked for."
  }
}

run "secrets" {
  command = plan

  variables {
    provider_secrets = ["openai", "openrouter"]
  }

  assert {
    condition     = toset([for secret in aws_secretsmanager_secret.provider : secret.name]) == toset(["tallygate/provider/openai", "tallygate/provider/openrouter"]) && aws_secretsmanager_secret.edge.name == "tallygate/edge"
    error_message = "A secret for each provider and one for the gateway."
  }

  assert {
    condition = toset(data.aws_iam_policy_document.secrets.statement[0].resources) == toset([
      "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tallygate/edge-??????",
      "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tallygate/provider/openai-??????",
      "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tallygate/provider/openrouter-??????",
    ])
    error_message = "The reconciler reads its own secrets only."
  }
}

run "cost_explorer_off" {
  command = plan

  assert {
    condition     = length([for statement in data.aws_iam_policy_document.runtime.statement : statement if contains(statement.actions, "ce:GetCostAndUsage")]) == 0
    error_message = "Without the switch there is no permission for paid calls."
  }
}

run "cost_explorer_on" {
  command = plan

  variables {
    enable_cost_explorer   = true
    max_paid_calls_per_run = 42
  }

  assert {
    condition     = length([for statement in data.aws_iam_policy_document.runtime.statement : statement if contains(statement.actions, "ce:GetCostAndUsage")]) == 1
    error_message = "With the switch there is."
  }

  assert {
    condition     = local.environment.TALLYGATE_MAX_PAID_CALLS == "42"
    error_message = "The Lambda knows how many paid calls a run may make."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.one["paid-calls"].threshold == 300 && aws_cloudwatch_metric_alarm.one["paid-calls"].period == 86400
    error_message = "An alarm counts paid calls by the day."
  }
}

run "alarms" {
  command = plan

  assert {
    condition     = aws_cloudwatch_metric_alarm.no_run.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.no_run.evaluation_periods == 26 && aws_cloudwatch_metric_alarm.no_run.datapoints_to_alarm == 26
    error_message = "26 hours of silence are an alarm."
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.one) == ["duration", "errors", "failed-events", "paid-calls", "run-failed", "run-partial", "throttles", "unmetered"]
    error_message = "Every alarm is there."
  }

  assert {
    condition = alltrue([
      for key, metric in { run-partial = "RunPartial", run-failed = "RunFailed", unmetered = "UnmeteredUsd", paid-calls = "PaidCalls" } :
      aws_cloudwatch_metric_alarm.one[key].namespace == "Tallygate/Reconciler" && aws_cloudwatch_metric_alarm.one[key].metric_name == metric && aws_cloudwatch_metric_alarm.one[key].dimensions == tomap({ service = "reconciler" })
    ])
    error_message = "Alarms look at the metrics that the reconciler prints."
  }

  assert {
    condition     = toset(flatten([for query in aws_cloudwatch_metric_alarm.variance.metric_query : [for metric in query.metric : metric.metric_name]])) == toset(["VarianceUsd"])
    error_message = "The variance alarm looks at VarianceUsd, in both directions."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.one["duration"].threshold == 870000
    error_message = "Half a minute from the time limit is an alarm."
  }
}

run "tables" {
  command = plan

  assert {
    condition     = length(local.cost_and_usage_columns) == 65 && length(distinct([for column in local.cost_and_usage_columns : lower(column[0])])) == 65
    error_message = "FOCUS 1.4 Cost and Usage has 65 columns."
  }

  assert {
    condition = alltrue([
      for column in concat(local.cost_and_usage_columns, local.custom_columns, local.invoice_detail_columns) :
      column[1] == "decimal(38,12)" if can(regex("(Cost|Price|Quantity)$", column[0]))
    ])
    error_message = "Money and quantities are exact decimals."
  }

  assert {
    condition     = aws_glue_catalog_table.focus["cost_and_usage"].parameters["storage.location.template"] == "s3://tallygate-books-111122223333-eu-central-1/export/v1/$${workspace}/focus_1_4/cost_and_usage/billing_period=$${billing_period}/charge_day=$${charge_day}/"
    error_message = "Where the reconciler writes the exports."
  }

  assert {
    condition     = aws_glue_catalog_table.focus["cost_and_usage"].parameters["projection.workspace.type"] == "injected"
    error_message = "Without a list of workspaces a query names one."
  }

  assert {
    condition     = aws_athena_workgroup.books.configuration[0].bytes_scanned_cutoff_per_query == 100000000000 && aws_athena_workgroup.books.configuration[0].enforce_workgroup_configuration
    error_message = "Queries are stopped at 100 GB, whatever the client asks for."
  }

  assert {
    condition     = length(aws_athena_named_query.saved) == 5 && length(aws_athena_named_query.view) == 3
    error_message = "Five questions and three views."
  }
}

run "listed_workspaces" {
  command = plan

  variables {
    workspaces = ["ws_acme", "ws_beta"]
  }

  assert {
    condition     = aws_glue_catalog_table.focus["invoice_detail"].parameters["projection.workspace.values"] == "ws_acme,ws_beta"
    error_message = "Listed workspaces are projected."
  }

  assert {
    condition     = strcontains(aws_athena_named_query.saved["unmetered-use"].query, "c.workspace = 'ws_acme'")
    error_message = "Saved queries begin with the first workspace."
  }
}

# Each wrong value is refused by its variable.

run "refuses_values_out_of_range" {
  command = plan

  variables {
    name                     = "Tally_gate"
    edge_url                 = "http://gateway.example.com"
    lambda_zip               = "./no-such-file.zip"
    workspaces               = ["ws acme"]
    provider_secrets         = ["Open AI"]
    max_paid_calls_per_run   = 1.5
    paid_calls_alarm_per_day = 0
    cost_allocation_tag      = ""
    settings                 = { TALLYGATE_OPENAI_KEY = "x" }
    schedule                 = "every night"
    schedule_time_zone       = "CEST+2"
    lookback_days            = 0
    memory_mb                = 128
    timeout_seconds          = 901
    scratch_mb               = 100
    log_level                = "LOUD"
    log_retention_days       = 30
    permissions_boundary_arn = "boundary"
    table_class              = "GOLD"
    table_max_write_units    = 0
    table_max_read_units     = -2
    object_lock_days         = -1
    raw_archive_after_days   = 60
    athena_scan_limit_gb     = 0
    export_first_day         = "2026-02-30"
    alarm_emails             = ["nobody"]
    no_run_hours             = 24
    unmetered_alarm_usd      = -1
    variance_alarm_usd       = 0
  }

  expect_failures = [
    var.name, var.edge_url, var.lambda_zip, var.workspaces, var.provider_secrets, var.max_paid_calls_per_run,
    var.paid_calls_alarm_per_day, var.cost_allocation_tag, var.settings, var.schedule, var.schedule_time_zone,
    var.lookback_days, var.memory_mb, var.timeout_seconds, var.scratch_mb, var.log_level, var.log_retention_days,
    var.permissions_boundary_arn, var.table_class, var.table_max_write_units, var.table_max_read_units, var.object_lock_days,
    var.raw_archive_after_days, var.athena_scan_limit_gb, var.export_first_day, var.alarm_emails, var.no_run_hours,
    var.unmetered_alarm_usd, var.variance_alarm_usd,
  ]
}

run "refuses_a_setting_that_has_its_own_variable" {
  command = plan

  variables {
    settings = { TALLYGATE_TABLE = "other" }
  }

  expect_failures = [var.settings]
}
