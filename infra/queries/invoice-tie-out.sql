WITH charged AS (
  SELECT invoiceissuername, invoiceid, sum(billedcost) AS usd
  FROM ${charges_of_month}
  GROUP BY 1, 2
),
invoiced AS (
  SELECT invoiceissuername, invoiceid, sum(billedcost) AS usd
  FROM ${invoice_of_month}
  WHERE invoiceissuestatus <> 'Voided'
  GROUP BY 1, 2
)
SELECT
  coalesce(charged.invoiceissuername, invoiced.invoiceissuername) AS issuer,
  coalesce(charged.invoiceid, invoiced.invoiceid, '(not invoiced yet)') AS invoice,
  charged.usd AS charges_usd,
  invoiced.usd AS invoice_usd,
  coalesce(charged.usd, DECIMAL '0') - coalesce(invoiced.usd, DECIMAL '0') AS difference_usd
FROM charged
FULL OUTER JOIN invoiced
  ON charged.invoiceissuername = invoiced.invoiceissuername
  AND charged.invoiceid = invoiced.invoiceid
ORDER BY abs(coalesce(charged.usd, DECIMAL '0') - coalesce(invoiced.usd, DECIMAL '0')) DESC
