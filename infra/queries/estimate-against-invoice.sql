SELECT
  charge_day,
  serviceprovidername AS provider,
  coalesce(json_extract_scalar(skupricedetails, '$.x_ModelId'), servicename) AS model,
  sum(coalesce(x_estimatedcost, DECIMAL '0')) AS estimated_usd,
  sum(billedcost) AS billed_usd,
  sum(billedcost) - sum(coalesce(x_estimatedcost, DECIMAL '0')) AS difference_usd
FROM ${charges_of_month}
WHERE chargecategory = 'Usage'
GROUP BY 1, 2, 3
ORDER BY abs(sum(billedcost) - sum(coalesce(x_estimatedcost, DECIMAL '0'))) DESC
