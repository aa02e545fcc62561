# One look at the nights.

locals {
  lambda_dimension = ["FunctionName", local.function_name]
  own_dimension    = ["service", "reconciler"]

  # Two widgets to a row, in this order.
  charts = [
    {
      title   = "Runs"
      stat    = "Sum"
      metrics = [for metric in ["RunCompleted", "RunPartial", "RunFailed", "ProvidersMissing"] : concat([local.metrics, metric], local.own_dimension)]
    },
    {
      title   = "Variance and unmetered use, USD"
      stat    = "Maximum"
      metrics = [for metric in ["VarianceUsd", "UnmeteredUsd"] : concat([local.metrics, metric], local.own_dimension)]
    },
    {
      title   = "Ledger rows written"
      stat    = "Sum"
      metrics = [concat([local.metrics, "LedgerRowsWritten"], local.own_dimension)]
    },
    {
      title   = "Paid Cost Explorer calls ($0.01 each)"
      stat    = "Sum"
      metrics = [concat([local.metrics, "PaidCalls"], local.own_dimension)]
    },
    {
      title   = "Lambda: longest run, ms (limit ${var.timeout_seconds * 1000})"
      stat    = "Maximum"
      metrics = [concat(["AWS/Lambda", "Duration"], local.lambda_dimension)]
    },
    {
      title   = "Lambda: errors and throttles"
      stat    = "Sum"
      metrics = [for metric in ["Errors", "Throttles"] : concat(["AWS/Lambda", metric], local.lambda_dimension)]
    },
    {
      title   = "Ledger table: units consumed"
      stat    = "Sum"
      metrics = [for metric in ["ConsumedWriteCapacityUnits", "ConsumedReadCapacityUnits"] : ["AWS/DynamoDB", metric, "TableName", local.table_name]]
    },
    {
      title   = "Failed events waiting"
      stat    = "Maximum"
      metrics = [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", local.dlq_name]]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "reconciler" {
  dashboard_name = "${var.name}-reconciler"

  dashboard_body = jsonencode({
    start = "-P14D"
    widgets = [
      for place, chart in local.charts : {
        type   = "metric"
        x      = (place % 2) * 12
        y      = floor(place / 2) * 6
        width  = 12
        height = 6
        properties = {
          title   = chart.title
          region  = local.region
          view    = "timeSeries"
          period  = 3600
          stat    = chart.stat
          metrics = chart.metrics
        }
      }
    ]
  })
}
