# Objects. What the reconciler writes is written once (`written_once` in iam.tf):
#   raw/     what providers answered, byte for byte, named by its content
#   pull/    which answers one pull got
#   events/  the gateway's events of a day
#   rows/    a day's full rows
#   sorted/  what a large day was summed to so far, for the next invocation: gone after two weeks
#   told/    what the gateway was told of a day
#   report/  the runs' reports
#   export/  FOCUS files, named by revision and content; export-list/ says which belong together
#   doctor/  probes
# Written by people:
#   inbox/   bills that they drop
#   config/  reconciler.json, the configuration beyond the variables (README)

resource "aws_s3_bucket" "books" {
  # checkov:skip=CKV_AWS_18: Object writes are rare and named in the reconciler's report; add CloudTrail data events where an audit asks for reads.
  # checkov:skip=CKV_AWS_144: Raw answers can be asked for again and the exports computed again; versions and PITR cover mistakes.
  # checkov:skip=CKV2_AWS_62: Nothing waits for an object: the next night finds what was dropped in the inbox.
  bucket = local.bucket_name
  tags   = local.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "books" {
  bucket = aws_s3_bucket.books.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "books" {
  bucket = aws_s3_bucket.books.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.books.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "books" {
  bucket                  = aws_s3_bucket.books.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "books" {
  bucket = aws_s3_bucket.books.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "books" {
  count = var.object_lock_days > 0 ? 1 : 0

  bucket              = aws_s3_bucket.books.id
  object_lock_enabled = "Enabled"

  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.object_lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.books]
}

resource "aws_s3_bucket_lifecycle_configuration" "books" {
  bucket = aws_s3_bucket.books.id

  # Raw answers are looked at again for the look-back window only, and for audits. They are never deleted.
  rule {
    id     = "raw-archive"
    status = "Enabled"

    filter {
      prefix = "raw/"
    }

    transition {
      days          = 45
      storage_class = "STANDARD_IA"
    }

    transition {
      days          = var.raw_archive_after_days
      storage_class = "GLACIER_IR"
    }
  }

  # Exports are queried: no class that charges for reading soon, and none that makes a query wait.
  rule {
    id     = "export-infrequent"
    status = "Enabled"

    filter {
      prefix = "export/"
    }

    transition {
      days          = 400
      storage_class = "STANDARD_IA"
    }
  }

  # Made again from events/ where a run still needs it; a run goes on within a day or two.
  rule {
    id     = "sorted-expire"
    status = "Enabled"

    filter {
      prefix = "sorted/"
    }

    expiration {
      days = 14
    }
  }

  # Names are written once, so an older version of an object is a mistake that is kept for a quarter.
  rule {
    id     = "tidy"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }

    noncurrent_version_expiration {
      noncurrent_days = 90
    }
  }

  depends_on = [aws_s3_bucket_versioning.books]
}

resource "aws_s3_bucket_policy" "books" {
  bucket = aws_s3_bucket.books.id
  policy = data.aws_iam_policy_document.bucket.json

  depends_on = [aws_s3_bucket_public_access_block.books]
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.bucket_arn, "${local.bucket_arn}/*"]

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

  # A put without If-None-Match could replace what is there. The parts of a multipart upload create no object and cannot
  # carry the header: s3:ObjectCreationOperation is false for them, and the completing call is held to it.
  statement {
    sid       = "WrittenOnce"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = [for prefix in local.written_once : "${local.bucket_arn}/${prefix}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }

    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["true"]
    }
  }

  # Evidence is deleted by nobody. Whoever must do it changes this policy first, which CloudTrail keeps.
  statement {
    sid       = "NeverDeleted"
    effect    = "Deny"
    actions   = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = [for prefix in local.written_once : "${local.bucket_arn}/${prefix}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
  }

  statement {
    sid       = "NoOtherKey"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = ["${local.bucket_arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    # A put that names no key gets ours from the bucket's default.
    condition {
      test     = "StringNotEqualsIfExists"
      variable = "s3:x-amz-server-side-encryption-aws-kms-key-id"
      values   = [aws_kms_key.books.arn]
    }

    condition {
      test     = "Null"
      variable = "s3:x-amz-server-side-encryption-aws-kms-key-id"
      values   = ["false"]
    }
  }
}

# Results of queries are apart from the books: who may query need not be able to write there.

resource "aws_s3_bucket" "results" {
  # checkov:skip=CKV_AWS_18: Results of queries that expire after a month; Athena keeps the history of queries.
  # checkov:skip=CKV_AWS_144: A result can be had again by running its query.
  # checkov:skip=CKV2_AWS_62: Nothing waits for a result.
  bucket        = local.results_name
  force_destroy = true
  tags          = local.tags
}

resource "aws_s3_bucket_versioning" "results" {
  bucket = aws_s3_bucket.results.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "results" {
  bucket = aws_s3_bucket.results.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.books.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "results" {
  bucket                  = aws_s3_bucket.results.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "results" {
  bucket = aws_s3_bucket.results.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "results" {
  bucket = aws_s3_bucket.results.id

  rule {
    id     = "expire"
    status = "Enabled"

    filter {}

    expiration {
      days = 30
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  depends_on = [aws_s3_bucket_versioning.results]
}

resource "aws_s3_bucket_policy" "results" {
  bucket = aws_s3_bucket.results.id
  policy = data.aws_iam_policy_document.results.json

  depends_on = [aws_s3_bucket_public_access_block.results]
}

data "aws_iam_policy_document" "results" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.results_arn, "${local.results_arn}/*"]

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
