-- Every dollar between the estimate and the bill is explained: by other quantities or by other prices.
SELECT
  charge_day,
  serviceprovidername AS provider,
  coalesce(json_extract_scalar(skupricedetails, '$.x_ModelId'), servicename) AS model,
  sum(x_estimatedcost) AS estimated_usd,
  sum(billedcost) AS billed_usd,
  sum(billedcost) - sum(x_estimatedcost) AS difference_usd,
  sum(x_quantityvariancecost) AS by_quantity_usd,
  sum(x_pricevariancecost) AS by_price_usd
FROM ${charges_of_month}
WHERE chargecategory = 'Usage' AND x_costbasis <> 'Estimated'
GROUP BY 1, 2, 3
ORDER BY abs(sum(billedcost) - sum(x_estimatedcost)) DESC
