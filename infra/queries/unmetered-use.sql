SELECT
  charge_day,
  serviceprovidername AS provider,
  x_unmeteredcredential AS credential_or_account,
  json_extract_scalar(skupricedetails, '$.x_ModelId') AS model,
  skumeter AS meter,
  sum(consumedquantity) AS quantity,
  consumedunit AS unit,
  sum(billedcost) AS billed_usd
FROM ${charges_of_month}
WHERE x_unmeteredcredential IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, consumedunit
ORDER BY billed_usd DESC
