SELECT
  serviceprovidername AS provider,
  json_extract_scalar(skupricedetails, '$.x_ModelId') AS model,
  skumeter AS meter,
  sum(consumedquantity) AS tokens,
  sum(effectivecost) AS effective_usd,
  sum(effectivecost) / nullif(sum(consumedquantity) / DECIMAL '1000000', DECIMAL '0') AS usd_per_million_tokens
FROM ${charges_of_month}
WHERE consumedunit = 'Tokens'
GROUP BY 1, 2, 3
ORDER BY effective_usd DESC
