# Questions about the books: a workgroup with a limit on what a query may read, and queries to begin with.

resource "aws_athena_workgroup" "books" {
  name          = "${var.name}-books"
  description   = "Queries over the FOCUS exports"
  force_destroy = true
  tags          = local.tags

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.athena_scan_limit_gb * 1000000000

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location       = "s3://${local.results_name}/results/"
      expected_bucket_owner = local.account

      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = aws_kms_key.books.arn
      }
    }
  }
}

locals {
  # A workspace to begin with. Change it in the query for another.
  query_workspace = try(var.workspaces[0], "ws_example")
  this_month      = "date_format(current_date, '%Y-%m')"

  query_filters = {
    month = "c.workspace = '${local.query_workspace}' AND c.billing_period = ${local.this_month}"
    year  = "c.workspace = '${local.query_workspace}' AND c.billing_period >= date_format(date_add('month', -11, current_date), '%Y-%m')"
  }

  # `(SELECT ... )` of a dataset's rows as they stand, one export of each month.
  newest = {
    for key, source in {
      charges_of_month = { dataset = "cost_and_usage", filter = local.query_filters.month }
      charges_of_year  = { dataset = "cost_and_usage", filter = local.query_filters.year }
      invoice_of_month = { dataset = "invoice_detail", filter = local.query_filters.month }
      all_charges      = { dataset = "cost_and_usage", filter = "true" }
      all_invoices     = { dataset = "invoice_detail", filter = "true" }
      all_periods      = { dataset = "billing_period", filter = "true" }
      } : key => templatefile("${path.module}/queries/newest.sql", {
        database = local.database
        dataset  = source.dataset
        filter   = source.filter
    })
  }

  queries = {
    cost-per-million-tokens  = "What each model's tokens cost per million, this month"
    estimate-against-invoice = "What the gateway had estimated and what was billed, by provider, model and day, this month"
    invoice-tie-out          = "Charges against invoice lines, by invoice, this month: every difference should be 0"
    spend-by-team-and-month  = "What each team spent, by month, in a year"
    unmetered-use            = "Use that the gateway never saw, this month: leaked or shadow keys"
  }

  views = {
    current_billing_period = local.newest.all_periods
    current_cost_and_usage = local.newest.all_charges
    current_invoice_detail = local.newest.all_invoices
  }
}

resource "aws_athena_named_query" "saved" {
  for_each = local.queries

  name        = "${var.name}-${each.key}"
  description = each.value
  workgroup   = aws_athena_workgroup.books.name
  database    = aws_glue_catalog_database.focus.name
  query       = templatefile("${path.module}/queries/${each.key}.sql", local.newest)
}

# Run once each, for dashboards and tools that want a table and not a query.
resource "aws_athena_named_query" "view" {
  for_each = local.views

  name        = "${var.name}-create-view-${replace(each.key, "_", "-")}"
  description = "Makes the view ${each.key}: the newest export of each month"
  workgroup   = aws_athena_workgroup.books.name
  database    = aws_glue_catalog_database.focus.name
  query       = "CREATE OR REPLACE VIEW ${local.database}.${each.key} AS\nSELECT * FROM ${trimspace(each.value)}\n"
}

# For those who ask: attach it to their role.

resource "aws_iam_policy" "analyst" {
  name        = "${var.name}-reconciler-analyst"
  description = "Query the FOCUS exports with Athena"
  policy      = data.aws_iam_policy_document.analyst.json
  tags        = local.tags
}

data "aws_iam_policy_document" "analyst" {
  statement {
    sid = "Ask"
    actions = [
      "athena:BatchGetNamedQuery", "athena:GetNamedQuery", "athena:GetQueryExecution", "athena:GetQueryResults",
      "athena:GetWorkGroup", "athena:ListNamedQueries", "athena:ListQueryExecutions", "athena:StartQueryExecution",
      "athena:StopQueryExecution",
    ]
    resources = [aws_athena_workgroup.books.arn]
  }

  statement {
    sid     = "SeeTheTables"
    actions = ["glue:GetDatabase", "glue:GetPartition", "glue:GetPartitions", "glue:GetTable", "glue:GetTables"]
    resources = [
      "${local.arn}:glue:${local.region}:${local.account}:catalog",
      "${local.arn}:glue:${local.region}:${local.account}:database/${local.database}",
      "${local.arn}:glue:${local.region}:${local.account}:table/${local.database}/*",
    ]
  }

  statement {
    sid       = "ReadTheExports"
    actions   = ["s3:GetObject"]
    resources = ["${local.bucket_arn}/export/*"]
  }

  statement {
    sid       = "ListTheExports"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["export/*"]
    }
  }

  statement {
    sid       = "WriteResults"
    actions   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
    resources = ["${local.results_arn}/*"]
  }

  statement {
    sid       = "ListResults"
    actions   = ["s3:GetBucketLocation", "s3:ListBucket"]
    resources = [local.results_arn]
  }

  statement {
    sid       = "UseTheKeyThroughS3"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.books.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${local.region}.amazonaws.com"]
    }
  }
}
