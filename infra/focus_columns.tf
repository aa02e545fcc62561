# The columns of the FOCUS 1.4 exports, as the reconciler writes them in Parquet. Glue names are lower case; Athena matches
# them with the files' names whatever their case. Decimals are exact: 38 digits, 12 of them after the point.

locals {
  d = "decimal(38,12)"
  s = "string"
  t = "timestamp"

  # All 65 columns of Cost and Usage, then the project's own.
  cost_and_usage_columns = [
    ["AllocatedMethodDetails", local.s], ["AllocatedMethodId", local.s], ["AllocatedResourceId", local.s],
    ["AllocatedResourceName", local.s], ["AllocatedTags", local.s], ["AvailabilityZone", local.s],
    ["BilledCost", local.d], ["BillingAccountId", local.s], ["BillingAccountName", local.s],
    ["BillingAccountType", local.s], ["BillingCurrency", local.s], ["BillingPeriodEnd", local.t],
    ["BillingPeriodStart", local.t], ["CapacityReservationId", local.s], ["CapacityReservationStatus", local.s],
    ["ChargeCategory", local.s], ["ChargeClass", local.s], ["ChargeDescription", local.s],
    ["ChargeFrequency", local.s], ["ChargePeriodEnd", local.t], ["ChargePeriodStart", local.t],
    ["CommitmentDiscountCategory", local.s], ["CommitmentDiscountId", local.s], ["CommitmentDiscountName", local.s],
    ["CommitmentDiscountQuantity", local.d], ["CommitmentDiscountStatus", local.s], ["CommitmentDiscountType", local.s],
    ["CommitmentDiscountUnit", local.s], ["CommitmentProgramEligibilityDetails", local.s], ["ConsumedQuantity", local.d],
    ["ConsumedUnit", local.s], ["ContractApplied", local.s], ["ContractedCost", local.d],
    ["ContractedUnitPrice", local.d], ["EffectiveCost", local.d], ["HostProviderName", local.s],
    ["InvoiceDetailId", local.s], ["InvoiceId", local.s], ["InvoiceIssuerName", local.s],
    ["ListCost", local.d], ["ListUnitPrice", local.d], ["PricingCategory", local.s],
    ["PricingCurrency", local.s], ["PricingCurrencyContractedUnitPrice", local.d], ["PricingCurrencyEffectiveCost", local.d],
    ["PricingCurrencyListUnitPrice", local.d], ["PricingQuantity", local.d], ["PricingUnit", local.s],
    ["RegionId", local.s], ["RegionName", local.s], ["ResourceId", local.s],
    ["ResourceName", local.s], ["ResourceType", local.s], ["ServiceCategory", local.s],
    ["ServiceName", local.s], ["ServiceProviderName", local.s], ["ServiceSubcategory", local.s],
    ["SkuId", local.s], ["SkuMeter", local.s], ["SkuPriceDetails", local.s],
    ["SkuPriceId", local.s], ["SubAccountId", local.s], ["SubAccountName", local.s],
    ["SubAccountType", local.s], ["Tags", local.s],
  ]

  custom_columns = [
    ["x_AllocationMethod", local.s], ["x_BillSource", local.s], ["x_ChargeId", local.s],
    ["x_ChargeKind", local.s], ["x_ConsumerId", local.s], ["x_CorrectionStep", local.s],
    ["x_CostBasis", local.s], ["x_CostResidual", local.d], ["x_CredentialId", local.s],
    ["x_EstimatedCost", local.d], ["x_LedgerRevision", local.d], ["x_ListPriceSource", local.s],
    ["x_OriginChargeId", local.s], ["x_PriceVarianceCost", local.d], ["x_PriceVersion", local.s],
    ["x_PrincipalId", local.s], ["x_QuantitySource", local.s], ["x_QuantityVarianceCost", local.d],
    ["x_RequestCount", local.d], ["x_UnmeteredCredential", local.s], ["x_WorkspaceId", local.s],
  ]

  invoice_detail_columns = [
    ["BilledCost", local.d], ["BillingAccountId", local.s], ["BillingCurrency", local.s],
    ["BillingPeriodEnd", local.t], ["BillingPeriodStart", local.t], ["ChargeCategory", local.s],
    ["InvoiceDetailCreated", local.t], ["InvoiceDetailDescription", local.s], ["InvoiceDetailGrain", local.s],
    ["InvoiceDetailId", local.s], ["InvoiceDetailLastUpdated", local.t], ["InvoiceId", local.s],
    ["InvoiceIssueDate", local.t], ["InvoiceIssueStatus", local.s], ["InvoiceIssuerName", local.s],
    ["PaymentCurrency", local.s], ["PaymentCurrencyBilledCost", local.d], ["PaymentCurrencyInvoiceDetailId", local.s],
    ["PaymentDueDate", local.t], ["PaymentTerms", local.s], ["PurchaseOrderNumber", local.s],
    ["ReferenceInvoiceId", local.s],
  ]

  billing_period_columns = [
    ["BillingPeriodCreated", local.t], ["BillingPeriodEnd", local.t], ["BillingPeriodLastUpdated", local.t],
    ["BillingPeriodStart", local.t], ["BillingPeriodStatus", local.s], ["InvoiceIssuerName", local.s],
  ]
}
