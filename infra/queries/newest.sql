(
  -- Exports are written once, and a month may be exported again: part-r1795168800000-... is of the one that was made at
  -- that millisecond. An export holds the whole month, so only its newest counts, also for the days and tables in which
  -- that one has nothing: they have no file of its number. Billing Period has rows in every export, and its file comes last.
  SELECT c.*
  FROM ${database}.${dataset} c
  JOIN (
    SELECT
      workspace,
      billing_period,
      max(coalesce(cast(regexp_extract("$path", '/part-r([0-9]+)-[^/]*$', 1) AS bigint), 0)) AS export_number
    FROM ${database}.billing_period c
    WHERE ${filter}
    GROUP BY workspace, billing_period
  ) newest
    -- The partitions are compared as well, so that a filter on the outside prunes both sides.
    ON c.workspace = newest.workspace
    AND c.billing_period = newest.billing_period
    AND coalesce(cast(regexp_extract(c."$path", '/part-r([0-9]+)-[^/]*$', 1) AS bigint), 0) = newest.export_number
  WHERE ${filter}
)
