# What wakes somebody. The reconciler prints its metrics in its log (embedded metric format): namespace
# Tallygate/Reconciler, dimension service = reconciler.

resource "aws_sns_topic" "alarms" {
  name              = local.topic_name
  kms_master_key_id = aws_kms_key.books.arn
  tags              = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.topic.json
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsOfThisAccount"
    actions   = ["sns:Publish"]
    resources = [local.topic_arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [local.topic_arn]

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

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  metrics    = "Tallygate/Reconciler"
  dimensions = { service = "reconciler" }
  hour       = 3600

  # One metric, one threshold. `namespace` and `dimensions` are the reconciler's own unless an alarm says otherwise.
  alarms = {
    run-partial = {
      metric      = "RunPartial"
      description = "A run ended without every provider: its report names what is missing. The next night takes it up; act when it is refused, and not only late."
      stat        = "Sum"
      above       = 0
    }
    run-failed = {
      metric      = "RunFailed"
      description = "A run failed: see the reconciler's log. The next slot goes on from its checkpoint."
      stat        = "Sum"
      above       = 0
    }
    unmetered = {
      metric      = "UnmeteredUsd"
      description = "A provider billed use that the gateway never saw: a leaked or a shadow key. The saved query unmetered-use names the credential; revoke it."
      stat        = "Maximum"
      above       = var.unmetered_alarm_usd
    }
    paid-calls = {
      metric      = "PaidCalls"
      description = "More paid Cost Explorer calls in a day than paid_calls_alarm_per_day, at $0.01 each: look for a run that begins again and again. enable_cost_explorer = false takes the permission away."
      stat        = "Sum"
      above       = var.paid_calls_alarm_per_day
      period      = 24 * local.hour
    }
    failed-events = {
      namespace   = "AWS/SQS"
      dimensions  = { QueueName = local.dlq_name }
      metric      = "ApproximateNumberOfMessagesVisible"
      description = "Slots that could not be started, or failed, wait in the queue of failed events. Read them, mend the cause, purge the queue."
      stat        = "Maximum"
      above       = 0
    }
    errors = {
      namespace   = "AWS/Lambda"
      dimensions  = { FunctionName = local.function_name }
      metric      = "Errors"
      description = "The reconciler's Lambda failed, ran out of memory or out of time: see its log."
      stat        = "Sum"
      above       = 0
    }
    # One throttle is a slot that met the one before it, and is repeated. Many are a run that never ends.
    throttles = {
      namespace   = "AWS/Lambda"
      dimensions  = { FunctionName = local.function_name }
      metric      = "Throttles"
      description = "Slots keep meeting a reconciler that still runs, or the account's concurrency is used up."
      stat        = "Sum"
      above       = 20
    }
    # It checkpoints a minute before the limit and then ends: half of that minute gone means the checkpoint is slow.
    duration = {
      namespace   = "AWS/Lambda"
      dimensions  = { FunctionName = local.function_name }
      metric      = "Duration"
      description = "The reconciler came within 30 seconds of its time limit: its checkpoint is late. Give it more memory or smaller units."
      stat        = "Maximum"
      above       = (var.timeout_seconds - 30) * 1000
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "one" {
  for_each = local.alarms

  alarm_name          = "${var.name}-reconciler-${each.key}"
  alarm_description   = each.value.description
  namespace           = try(each.value.namespace, local.metrics)
  dimensions          = try(each.value.dimensions, local.dimensions)
  metric_name         = each.value.metric
  statistic           = each.value.stat
  period              = try(each.value.period, local.hour)
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags
}

# Silence is the failure that no other alarm sees: a schedule that is off, a Lambda that never starts.
resource "aws_cloudwatch_metric_alarm" "no_run" {
  alarm_name          = "${var.name}-reconciler-no-run"
  alarm_description   = "No run came to an end, complete or partial, in ${var.no_run_hours} hours: look at the schedule, the Lambda's log and the queue of failed events."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = var.no_run_hours
  datapoints_to_alarm = var.no_run_hours
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags

  metric_query {
    id          = "ended"
    label       = "Runs that ended"
    expression  = "FILL(completed, 0) + FILL(partial, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { completed = "RunCompleted", partial = "RunPartial" }

    content {
      id = metric_query.key

      metric {
        namespace   = local.metrics
        dimensions  = local.dimensions
        metric_name = metric_query.value
        stat        = "Sum"
        period      = local.hour
      }
    }
  }
}

# Too low is as wrong as too high.
resource "aws_cloudwatch_metric_alarm" "variance" {
  alarm_name          = "${var.name}-reconciler-variance"
  alarm_description   = "The bills differ from the estimates by more than ${var.variance_alarm_usd} USD: the saved query estimate-against-invoice shows where, the run's report why (price or quantity)."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.variance_alarm_usd
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags

  metric_query {
    id          = "size"
    label       = "Variance, USD"
    expression  = "MAX([ABS(highest), ABS(lowest)])"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { highest = "Maximum", lowest = "Minimum" }

    content {
      id = metric_query.key

      metric {
        namespace   = local.metrics
        dimensions  = local.dimensions
        metric_name = "VarianceUsd"
        stat        = metric_query.value
        period      = local.hour
      }
    }
  }
}
