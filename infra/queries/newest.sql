(
  -- Exports are written once and a day may be exported again: part-r00003-... is the third export of its partition, and
  -- only the highest number counts. Files without a number count by when they were written.
  SELECT c.*
  FROM ${database}.${dataset} c
  JOIN (
    SELECT
      path,
      dense_rank() OVER (
        PARTITION BY ${replace(partitions, "c.", "")}
        ORDER BY export_number DESC, CASE WHEN export_number = 0 THEN written END DESC, CASE WHEN export_number = 0 THEN path END
      ) AS place
    FROM (
      SELECT DISTINCT
        "$path" AS path,
        "$file_modified_time" AS written,
        coalesce(try_cast(regexp_extract("$path", '/part-r([0-9]+)-[^/]*$', 1) AS bigint), 0) AS export_number,
        ${partitions}
      FROM ${database}.${dataset} c
      WHERE ${filter}
    )
  ) export ON c."$path" = export.path AND export.place = 1
  WHERE ${filter}
)
