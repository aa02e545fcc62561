# Tables over the exports, without a crawler: where a partition is follows from its name (partition projection).
#
#   export/v1/<workspace>/focus_1_4/cost_and_usage/billing_period=2026-11/charge_day=2026-11-20/part-r1795168800000-<sha>.parquet
#   export/v1/<workspace>/focus_1_4/invoice_detail/billing_period=2026-11/part-r1795168800000-<sha>.parquet
#   export/v1/<workspace>/focus_1_4/billing_period/billing_period=2026-11/part-r1795168800000-<sha>.parquet
#
# Objects are written once, so a month that is exported again has more than one export, and only the newest counts:
# the number behind the r is the time an export was made, in milliseconds since 1970. An export of a month is whole, and all
# its parts carry one number: a partition without a part of the newest number has nothing any more. The saved queries and
# the `current_...` views see to it (queries/newest.sql). These folders hold Parquet alone: Athena reads every file in them.

resource "aws_glue_catalog_database" "focus" {
  name        = local.database
  description = "FOCUS 1.4 exports of the reconciler"
  tags        = local.tags
}

locals {
  first_month = substr(var.export_first_day, 0, 7)

  # Listed workspaces are projected; otherwise a query must name one.
  project_workspace = length(var.workspaces) == 0 ? {
    "projection.workspace.type" = "injected"
    } : {
    "projection.workspace.type"   = "enum"
    "projection.workspace.values" = join(",", var.workspaces)
  }

  # Up to next month: the last hours of a month are already tomorrow's in UTC.
  project_period = {
    "projection.billing_period.type"          = "date"
    "projection.billing_period.format"        = "yyyy-MM"
    "projection.billing_period.range"         = "${local.first_month},NOW+1MONTHS"
    "projection.billing_period.interval"      = "1"
    "projection.billing_period.interval.unit" = "MONTHS"
  }

  project_day = {
    "projection.charge_day.type"          = "date"
    "projection.charge_day.format"        = "yyyy-MM-dd"
    "projection.charge_day.range"         = "${var.export_first_day},NOW+1DAYS"
    "projection.charge_day.interval"      = "1"
    "projection.charge_day.interval.unit" = "DAYS"
  }

  datasets = {
    cost_and_usage = {
      description = "What was billed, by charge: provider, model, meter, owner"
      columns     = concat(local.cost_and_usage_columns, local.custom_columns)
      partitions  = ["workspace", "billing_period", "charge_day"]
      projection  = merge(local.project_workspace, local.project_period, local.project_day)
    }
    invoice_detail = {
      description = "Lines of the providers' invoices"
      columns     = local.invoice_detail_columns
      partitions  = ["workspace", "billing_period"]
      projection  = merge(local.project_workspace, local.project_period)
    }
    billing_period = {
      description = "Billing periods, open or closed"
      columns     = local.billing_period_columns
      partitions  = ["workspace", "billing_period"]
      projection  = merge(local.project_workspace, local.project_period)
    }
  }
}

resource "aws_glue_catalog_table" "focus" {
  for_each = local.datasets

  database_name = aws_glue_catalog_database.focus.name
  name          = each.key
  description   = each.value.description
  table_type    = "EXTERNAL_TABLE"

  parameters = merge(each.value.projection, {
    "classification"     = "parquet"
    "EXTERNAL"           = "TRUE"
    "projection.enabled" = "true"
    # $${...} is Athena's own placeholder.
    "storage.location.template" = join("", concat(
      ["s3://${local.bucket_name}/export/v1/$${workspace}/focus_1_4/${each.key}/"],
      [for partition in each.value.partitions : "${partition}=$${${partition}}/" if partition != "workspace"],
    ))
  })

  dynamic "partition_keys" {
    for_each = each.value.partitions

    content {
      name = partition_keys.value
      type = "string"
    }
  }

  storage_descriptor {
    location      = "s3://${local.bucket_name}/export/v1/"
    input_format  = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"

    ser_de_info {
      name                  = "parquet"
      serialization_library = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
      parameters            = { "serialization.format" = "1" }
    }

    dynamic "columns" {
      for_each = each.value.columns

      content {
        name    = lower(columns.value[0])
        type    = columns.value[1]
        comment = columns.value[0]
      }
    }
  }
}
