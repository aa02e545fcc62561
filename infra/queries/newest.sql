(
  -- Exports are written once and a partition may be exported again: part-r00003-... belongs to its third export, and only
  -- the highest number counts. Of files without a number the one that was written last counts.
  SELECT c.*
  FROM ${database}.${dataset} c
  JOIN (
    SELECT
      path,
      ${join(", ", partitions)},
      dense_rank() OVER (
        PARTITION BY ${join(", ", partitions)}
        ORDER BY
          export_number DESC,
          CASE WHEN export_number = 0 THEN written END DESC,
          CASE WHEN export_number = 0 THEN path END
      ) AS place
    FROM (
      SELECT DISTINCT
        "$path" AS path,
        "$file_modified_time" AS written,
        coalesce(try_cast(regexp_extract("$path", '/part-r([0-9]+)-[^/]*$', 1) AS bigint), 0) AS export_number,
        ${join(", ", partitions)}
      FROM ${database}.${dataset} c
      WHERE ${filter}
    )
  ) export
    -- The partitions are compared as well, so that a filter on the outside prunes both sides.
    ON c."$path" = export.path AND ${join(" AND ", [for key in partitions : "c.${key} = export.${key}"])}
  WHERE export.place = 1 AND ${filter}
)
