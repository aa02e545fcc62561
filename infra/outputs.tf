output "function_name" {
  description = "The Lambda, for the first run by hand."
  value       = aws_lambda_function.reconciler.function_name
}

output "table_name" {
  description = "The ledger table."
  value       = aws_dynamodb_table.ledger.name
}

output "bucket_name" {
  description = "The bucket of raw answers, exports and the inbox."
  value       = aws_s3_bucket.books.id
}

output "inbox" {
  description = "Where bills of providers without a connector are dropped: <inbox><provider>/<file>."
  value       = "s3://${aws_s3_bucket.books.id}/inbox/"
}

output "inbox_policy_arn" {
  description = "Attach this policy to whoever drops bills in the inbox."
  value       = aws_iam_policy.inbox.arn
}

output "analyst_policy_arn" {
  description = "Attach this policy to whoever queries the exports."
  value       = aws_iam_policy.analyst.arn
}

output "edge_secret_arn" {
  description = "The secret that signs calls to the gateway. Put its value in by hand."
  value       = aws_secretsmanager_secret.edge.arn
}

output "provider_secret_arns" {
  description = "The secrets of providers' admin credentials, by provider. Put their values in by hand."
  value       = { for provider, secret in aws_secretsmanager_secret.provider : provider => secret.arn }
}

output "athena_workgroup" {
  description = "The workgroup with the saved queries."
  value       = aws_athena_workgroup.books.name
}

output "glue_database" {
  description = "The database of the FOCUS tables."
  value       = aws_glue_catalog_database.focus.name
}

output "alarm_topic_arn" {
  description = "The topic that alarms go to, for receivers other than mail."
  value       = aws_sns_topic.alarms.arn
}

output "failed_events_url" {
  description = "The queue of slots that could not be started or failed."
  value       = aws_sqs_queue.failed.url
}

output "key_arn" {
  description = "The KMS key of everything here."
  value       = aws_kms_key.books.arn
}

output "role_arn" {
  description = "The reconciler's role."
  value       = aws_iam_role.reconciler.arn
}
