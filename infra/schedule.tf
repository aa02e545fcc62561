# The nights: slots a quarter of an hour apart. See `schedule` in variables.tf.

resource "aws_scheduler_schedule_group" "reconciler" {
  name = local.schedule_group
  tags = local.tags
}

resource "aws_scheduler_schedule" "night" {
  name                         = "night"
  group_name                   = aws_scheduler_schedule_group.reconciler.name
  description                  = "Runs the reconciler until the night's work is done"
  schedule_expression          = var.schedule
  schedule_expression_timezone = var.schedule_time_zone
  state                        = var.schedule_enabled ? "ENABLED" : "DISABLED"
  kms_key_arn                  = aws_kms_key.books.arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.reconciler.arn
    role_arn = aws_iam_role.scheduler.arn

    # Written by hand: jsonencode would escape the angle brackets, and Scheduler would no longer know its own keyword.
    input = "{\"command\":\"night\",\"scheduled_at\":\"<aws.scheduler.scheduled-time>\"}"

    retry_policy {
      maximum_retry_attempts       = 5
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.failed.arn
    }
  }
}
