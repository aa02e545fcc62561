# The ledger: one table of string keys. What `pk` begins with says what an item is:
#   L#  the revisions of a unit's lines; older ones are never changed, the newest gives way to the next
#   T#  which units a month has
#   R#  a run: its lease, what it has done, its report
#   N#  a counter                 K#  a mark: a cursor, a closed month, a correction that was sent

resource "aws_dynamodb_table" "ledger" {
  name                        = local.table_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  table_class                 = var.table_class
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  on_demand_throughput {
    max_read_request_units  = var.table_max_read_units
    max_write_request_units = var.table_max_write_units
  }

  # IAM cannot demand a condition expression, so the last guard of "never overwritten" is to go back in time.
  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.books.arn
  }

  lifecycle {
    # Not even a change of name may take the books down: retire a table by hand.
    prevent_destroy = true
  }
}
