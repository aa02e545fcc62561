SELECT
  charge_day,
  serviceprovidername AS provider,
  json_extract_scalar(tags, '$.unmetered') AS credential_or_account,
  json_extract_scalar(skupricedetails, '$.x_ModelId') AS model,
  skumeter AS meter,
  sum(consumedquantity) AS quantity,
  consumedunit AS unit,
  sum(billedcost) AS billed_usd
FROM ${charges_of_month}
WHERE json_extract_scalar(tags, '$.unmetered') IS NOT NULL
GROUP BY charge_day, serviceprovidername, json_extract_scalar(tags, '$.unmetered'),
  json_extract_scalar(skupricedetails, '$.x_ModelId'), skumeter, consumedunit
ORDER BY billed_usd DESC
