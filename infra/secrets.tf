# Secrets are made empty: their values are put in by a person (README) and never are in a plan, a state or a variable.

resource "aws_secretsmanager_secret" "provider" {
  # checkov:skip=CKV2_AWS_57: Providers have no rotation call for admin keys: a person makes the new key there and puts it here.
  for_each = var.provider_secrets

  name                    = "${var.name}/provider/${each.key}"
  description             = "Settings and admin credential of ${each.key}: JSON, see the README"
  kms_key_id              = aws_kms_key.books.arn
  recovery_window_in_days = 30
  tags                    = local.tags
}

resource "aws_secretsmanager_secret" "edge" {
  # checkov:skip=CKV2_AWS_57: The gateway holds the same secret outside AWS: it is changed by hand on both sides (README).
  name                    = "${var.name}/edge"
  description             = "Signs the reconciler's calls to the gateway (HMAC-SHA256): JSON by workspace, see the README"
  kms_key_id              = aws_kms_key.books.arn
  recovery_window_in_days = 30
  tags                    = local.tags
}
