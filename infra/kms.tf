# One key for the ledger, the objects, the secrets, the queue, the topic, the logs and the Lambda's settings: whoever may
# not use it reads none of them, whatever else is granted by mistake.

resource "aws_kms_key" "books" {
  description             = "Tallygate reconciler ${var.name}: ledger, objects, secrets, logs"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = local.tags
}

resource "aws_kms_alias" "books" {
  name          = "alias/${var.name}-reconciler"
  target_key_id = aws_kms_key.books.key_id
}

data "aws_iam_policy_document" "key" {
  # checkov:skip=CKV_AWS_109: A key policy's "*" is this key alone, and without this statement nobody could manage it.
  # checkov:skip=CKV_AWS_111: As above: the resource of a key policy is always the key it is attached to.
  # checkov:skip=CKV_AWS_356: As above.

  statement {
    sid       = "AccountDecidesByIam"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["${local.arn}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "LogsOfTheReconciler"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${local.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = [local.log_group_arn]
    }
  }

  statement {
    sid       = "AlarmsToTheEncryptedTopic"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

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
}
