# The reconciler: a Lambda that runs in slots each night, its ledger (DynamoDB), its objects (S3), and what watches them.
# The order of reading: this file, lambda.tf, schedule.tf, ledger.tf, objects.tf, iam.tf, then the tables and alarms.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name
  arn       = "arn:${local.partition}"

  # Names are fixed here, so that policies can name resources before they exist, and the plan shows them whole.
  function_name  = "${var.name}-reconciler"
  function_arn   = "${local.arn}:lambda:${local.region}:${local.account}:function:${local.function_name}"
  log_group      = "/aws/lambda/${local.function_name}"
  log_group_arn  = "${local.arn}:logs:${local.region}:${local.account}:log-group:${local.log_group}"
  table_name     = "${var.name}-ledger"
  table_arn      = "${local.arn}:dynamodb:${local.region}:${local.account}:table/${local.table_name}"
  bucket_name    = "${var.name}-books-${local.account}-${local.region}"
  bucket_arn     = "${local.arn}:s3:::${local.bucket_name}"
  results_name   = "${var.name}-athena-${local.account}-${local.region}"
  results_arn    = "${local.arn}:s3:::${local.results_name}"
  dlq_name       = "${var.name}-reconciler-failed"
  dlq_arn        = "${local.arn}:sqs:${local.region}:${local.account}:${local.dlq_name}"
  topic_name     = "${var.name}-reconciler-alarms"
  topic_arn      = "${local.arn}:sns:${local.region}:${local.account}:${local.topic_name}"
  schedule_group = "${var.name}-reconciler"
  schedule_arn   = "${local.arn}:scheduler:${local.region}:${local.account}:schedule/${local.schedule_group}/night"
  database       = replace("${var.name}_focus", "-", "_")

  tags = merge(var.tags, { application = "tallygate", component = "reconciler" })
}
