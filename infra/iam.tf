# Who may do what. The reconciler adds to the books and never takes away: no role here can delete an item or an object.

data "aws_iam_policy_document" "lambda_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "reconciler" {
  name                 = "${var.name}-reconciler"
  assume_role_policy   = data.aws_iam_policy_document.lambda_trust.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "books" {
  name   = "books"
  role   = aws_iam_role.reconciler.id
  policy = data.aws_iam_policy_document.books.json
}

data "aws_iam_policy_document" "books" {
  statement {
    sid       = "ReadTheLedger"
    actions   = ["dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query"]
    resources = [local.table_arn]
  }

  # PutItem can replace an item, and IAM cannot demand a condition expression: the store's one write path carries it.
  statement {
    sid       = "AppendToTheLedger"
    actions   = ["dynamodb:PutItem"]
    resources = [local.table_arn]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = local.ledger_prefixes.put
    }

    # ForAllValues is true of a request without keys.
    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  statement {
    sid       = "ChangeRunsAndCounters"
    actions   = ["dynamodb:UpdateItem"]
    resources = [local.table_arn]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = local.ledger_prefixes.update
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # Of a revision only the newest pull that was seen to say the same is updated. Its content, hash and order are out of reach.
  statement {
    sid       = "NoteANewerPull"
    actions   = ["dynamodb:UpdateItem"]
    resources = [local.table_arn]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["L#*"]
    }

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:Attributes"
      values   = ["pk", "rev_", "seen_", "sk"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:Attributes"
      values   = ["false"]
    }
  }

  # Not narrowed by s3:prefix: a get of a missing key is answered 404 to whoever may list, else 403, and a get has no prefix.
  statement {
    sid       = "ListTheBucket"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]
  }

  statement {
    sid     = "ReadObjects"
    actions = ["s3:GetObject"]
    resources = [
      for prefix in concat(["config", "inbox"], local.written_once) : "${local.bucket_arn}/${prefix}/*"
    ]
  }

  statement {
    sid       = "WriteObjectsOnce"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = [for prefix in local.written_once : "${local.bucket_arn}/${prefix}/*"]
  }

  # Said outright, so that a policy that somebody attaches later does not open it.
  statement {
    sid    = "NeverDelete"
    effect = "Deny"
    actions = [
      "dynamodb:BatchWriteItem",
      "dynamodb:DeleteItem",
      "dynamodb:DeleteTable",
      "dynamodb:PartiQLDelete",
      "dynamodb:PartiQLInsert",
      "dynamodb:PartiQLUpdate",
      "dynamodb:UpdateTable",
      "s3:BypassGovernanceRetention",
      "s3:DeleteObject",
      "s3:DeleteObjectVersion",
      "s3:PutBucketPolicy",
      "s3:PutLifecycleConfiguration",
    ]
    resources = [local.table_arn, local.bucket_arn, "${local.bucket_arn}/*"]
  }
}

locals {
  # The folders of the bucket that the reconciler writes in, each object once.
  written_once = ["doctor", "events", "export", "export-list", "pull", "raw", "report", "rows", "sorted", "told"]

  # What a partition key begins with: see ledger.tf.
  ledger_prefixes = {
    put    = ["K#*", "L#*", "R#*", "T#*"]
    update = ["N#*", "R#*"]
  }
}

resource "aws_iam_role_policy" "secrets" {
  name   = "secrets"
  role   = aws_iam_role.reconciler.id
  policy = data.aws_iam_policy_document.secrets.json
}

data "aws_iam_policy_document" "secrets" {
  # Secrets Manager ends every ARN with six random characters: ?????? is exactly them, so that no longer name fits.
  statement {
    sid     = "ReadItsOwnSecrets"
    actions = ["secretsmanager:GetSecretValue"]
    resources = [
      for name in concat(["edge"], [for provider in sort(var.provider_secrets) : "provider/${provider}"]) :
      "${local.arn}:secretsmanager:${local.region}:${local.account}:secret:${var.name}/${name}-??????"
    ]
  }
}

resource "aws_iam_role_policy" "key" {
  name   = "key"
  role   = aws_iam_role.reconciler.id
  policy = data.aws_iam_policy_document.use_key.json
}

data "aws_iam_policy_document" "use_key" {
  statement {
    sid       = "UseTheKeyThroughServices"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = [aws_kms_key.books.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values = [
        for service in ["dynamodb", "s3", "secretsmanager", "sqs"] : "${service}.${local.region}.amazonaws.com"
      ]
    }
  }

  # The Lambda service decrypts the settings with the function's own role, and not through a service of the list.
  statement {
    sid       = "ReadItsOwnSettings"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.books.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:aws:lambda:FunctionArn"
      values   = [local.function_arn]
    }
  }
}

resource "aws_iam_role_policy" "runtime" {
  name   = "runtime"
  role   = aws_iam_role.reconciler.id
  policy = data.aws_iam_policy_document.runtime.json
}

data "aws_iam_policy_document" "runtime" {
  # checkov:skip=CKV_AWS_356: xray:Put* and ce:GetCostAndUsage know no narrower resource.
  # checkov:skip=CKV_AWS_111: As above: traces can be written, nothing else.

  statement {
    sid       = "WriteItsLog"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_group_arn}:*"]
  }

  statement {
    sid       = "SayWhatFailed"
    actions   = ["sqs:SendMessage"]
    resources = [local.dlq_arn]
  }

  statement {
    sid       = "Trace"
    actions   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    resources = ["*"]
  }

  # Each page of an answer costs $0.01: without the switch the permission is not there.
  dynamic "statement" {
    for_each = var.enable_cost_explorer ? [1] : []

    content {
      sid       = "AskCostExplorer"
      actions   = ["ce:GetCostAndUsage"]
      resources = ["*"]
    }
  }
}

# The schedule starts the Lambda and says what it could not start: no more.

data "aws_iam_policy_document" "scheduler_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name                 = "${var.name}-reconciler-scheduler"
  assume_role_policy   = data.aws_iam_policy_document.scheduler_trust.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "start"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "Start"
    actions   = ["lambda:InvokeFunction"]
    resources = [local.function_arn]
  }

  statement {
    sid       = "SayWhatFailed"
    actions   = ["sqs:SendMessage"]
    resources = [local.dlq_arn]
  }

  # For the schedule's own encryption and for the encrypted queue.
  statement {
    sid       = "UseTheKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.books.arn]
  }
}

# For the people and tools that drop bills in the inbox: attach it to their role. They can add files, and read or change none.

resource "aws_iam_policy" "inbox" {
  name        = "${var.name}-reconciler-inbox"
  description = "Drop bills in the reconciler's inbox"
  policy      = data.aws_iam_policy_document.inbox.json
  tags        = local.tags
}

data "aws_iam_policy_document" "inbox" {
  statement {
    sid       = "Drop"
    actions   = ["s3:PutObject"]
    resources = ["${local.bucket_arn}/inbox/*"]
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
