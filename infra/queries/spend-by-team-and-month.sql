SELECT
  billing_period,
  coalesce(json_extract_scalar(tags, '$.team'), '(no team)') AS team,
  sum(billedcost) AS billed_usd,
  sum(effectivecost) AS effective_usd
FROM ${charges_of_year}
GROUP BY 1, 2
ORDER BY billing_period DESC, billed_usd DESC
