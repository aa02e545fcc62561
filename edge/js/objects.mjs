// The Durable Object classes of requests and configuration: they carry data between storage, other objects and the Rust
// core, and decide nothing.

import { inCore, now, random } from "./core.mjs";
import { ALARM_SLACK_MS, CoreObject, RETRY_CEILING_MS, inTime } from "./object.mjs";

/** How long a change's own delivery may take before the alarm looks after it. */
const PUSH_GRACE_MS = 5_000;
/** Calls to the Telemetry object in one alarm. */
const TELEMETRY_CALLS = 20;

/** The Meter of one gateway key. */
export class Meter extends CoreObject {
  /** Per account: the call to its Budget that is under way, and the one that waits behind it. */
  #syncs = new Map();

  open(glue, sql) {
    return new glue.Meter(sql, random(8), now());
  }

  /** No commit and no call in the common case: a hold is memory under a ceiling that is durable, and under leases. */
  async admit(call) {
    let progress;
    for (;;) {
      const answer = this.use((meter) => meter.admit(call, progress, now()));
      if (!answer.startsWith('{"ask"')) {
        await this.#arm();
        return answer;
      }
      const { ask } = JSON.parse(answer);
      await Promise.all(ask.accounts.map((account) => this.#sync(account)));
      progress = ask.progress;
    }
  }

  /**
   * Reports to a Budget and takes its grants. Whoever waits while a call is under way shares the next one: what a call
   * asks for is what waited when it left.
   */
  #sync(account) {
    const state = this.#syncs.get(account);
    if (state === undefined) {
      const fresh = { next: undefined };
      this.#syncs.set(account, fresh);
      return this.#syncOnce(account).finally(() => this.#after(account, fresh));
    }
    state.next ??= Promise.withResolvers();
    return state.next.promise;
  }

  #after(account, state) {
    const { next } = state;
    if (next === undefined) {
      this.#syncs.delete(account);
      return;
    }
    state.next = undefined;
    this.#syncOnce(account)
      .then(next.resolve, next.reject)
      .finally(() => this.#after(account, state));
  }

  async #syncOnce(account) {
    const call = this.use((meter) => meter.sync_call(account, now()));
    const answer = await this.env.BUDGET.getByName(account).sync(call);
    this.use((meter) => meter.synced(account, answer, now()));
  }

  /** A Budget asks for what no request needs. */
  async recall(account, recall) {
    const returned = this.use((meter) => meter.recall(account, recall, now()));
    await this.#arm();
    return returned;
  }

  /** The Budget's answer to what was given back. */
  async granted(account, answer) {
    this.use((meter) => meter.synced(account, answer, now()));
    await this.#arm();
  }

  /** What applies to the key, for its holder: the Budgets hear this Meter's newest word before they answer. */
  async budget(call) {
    const { accounts, refused } = JSON.parse(this.use((meter) => meter.budget_accounts(call, now())));
    if (refused !== undefined) return refused;
    const statuses = await Promise.all(
      accounts.map(async (account) => {
        await this.#sync(account);
        return this.env.BUDGET.getByName(account).status();
      }),
    );
    return this.use((meter) => meter.answer_budget(`[${statuses.join(",")}]`, now()));
  }

  async settle(settlement) {
    const answer = this.transact((meter) => meter.settle(settlement, now()));
    await this.#arm();
    return answer;
  }

  /** What an isolate admitted by itself, and the subleases that it is done with. */
  async settleAll(settlements, ended) {
    this.transact((meter) => meter.settle_all(settlements, ended, now()));
    await this.#arm();
  }

  /** A sublease for an isolate, where there is plenty. */
  async sublet(version) {
    const offer = this.transact((meter) => meter.offer(version, random(10), now()));
    await this.#arm();
    return offer;
  }

  async applyPlan(plan) {
    this.transact((meter) => meter.apply_plan(plan));
    await this.#arm();
  }

  /** Answers a question about the key: `simulate`, `models`, `request`, `loops`, `clear_loop` or `state`. */
  ask(method, call) {
    return this.use((meter) => meter.ask(method, call, now()));
  }

  state() {
    return this.ask("state", "");
  }

  /** A ceiling above zero always has an alarm, so an admission that raises none needs none either: no write. */
  async #arm() {
    if (this.alarmAt !== undefined && this.alarmAt <= Date.now() + ALARM_SLACK_MS) return;
    await this.armAt(this.use((meter) => meter.alarm_at(now())));
  }

  async alarm() {
    this.alarmAt = undefined;
    try {
      await this.ring();
      this.failures = 0;
    } catch (error) {
      console.error(JSON.stringify({ event: "outbox_delivery_failed", error: String(error) }));
      await this.armAt(Date.now() + this.backOffMs());
    }
  }

  /** Settles what nobody settled, then delivers the outbox to the Ledger, in order. */
  async ring() {
    const { batches, accounts, alerts } = JSON.parse(this.transact((meter) => meter.wake(now())));
    try {
      for (const { ledger, payload, up_to } of batches) {
        await this.env.LEDGER.getByName(ledger).apply(payload);
        this.transact((meter) => meter.delivered(String(up_to)));
      }
      await Promise.all(accounts.map((account) => this.#sync(account)));
      await this.#arm();
    } finally {
      await Promise.all([alerts && this.#alert(alerts), this.#export()]);
    }
  }

  /** Has the Telemetry object count what it lacks, likewise behind all that money depends on. */
  async #export() {
    try {
      for (let calls = 0; calls < TELEMETRY_CALLS; calls += 1) {
        const next = this.use((meter) => meter.telemetry());
        if (next === undefined) return;
        const { workspace, payload, up_to, waiting } = JSON.parse(next);
        await inTime(this.env.TELEMETRY.getByName(workspace).ingest(payload));
        this.use((meter) => meter.exported(up_to === null ? undefined : String(up_to), String(waiting)));
        this.exportFailures = 0;
      }
      await this.armAt(Date.now() + ALARM_SLACK_MS);
    } catch (error) {
      console.error(JSON.stringify({ event: "telemetry_delivery_failed", error: String(error) }));
      this.exportFailures = (this.exportFailures ?? 0) + 1;
      await this.armAt(Date.now() + Math.min(RETRY_CEILING_MS, 1_000 * 2 ** Math.min(this.exportFailures, 6)));
    }
  }

  /** Shows events to the Alerts object, behind all that money depends on. A failure is its own: the alarm tries again. */
  async #alert({ workspace, payload, up_to }) {
    try {
      await inTime(this.env.ALERTS.getByName(workspace).ingest(payload));
      this.transact((meter) => meter.alerted(String(up_to)));
      this.alertFailures = 0;
    } catch (error) {
      console.error(JSON.stringify({ event: "alerts_delivery_failed", error: String(error) }));
      this.alertFailures = (this.alertFailures ?? 0) + 1;
      await this.armAt(Date.now() + Math.min(RETRY_CEILING_MS, 1_000 * 2 ** Math.min(this.alertFailures, 6)));
    }
  }
}

/** One account of a shared budget. */
export class Budget extends CoreObject {
  open(glue, sql) {
    return new glue.Budget(sql);
  }

  /** Takes the reconciler's corrections in. */
  async correct(call) {
    const { account, recall } = JSON.parse(this.transact((budget) => budget.correct(call, now())));
    if (recall.length > 0) await this.#recall(account, recall);
    await this.#after();
  }

  /** Answers a Meter. Where it lacks something that others may have, they are asked first. */
  async sync(call) {
    const { answer, recall } = this.#process(call, true);
    if (recall.length === 0) {
      await this.#after();
      return answer;
    }
    const account = JSON.parse(call).account;
    await this.#recall(account, recall);
    const again = this.#process(call, false).answer;
    await this.#after();
    return again;
  }

  /** Arms the alarm, and tells the workspace's alerts what is new: no caller waits for them. */
  async #after() {
    const news = this.use((budget) => budget.news(now()));
    if (news !== undefined) this.ctx.waitUntil(this.#tell(news));
    await this.#arm();
  }

  async #tell(news) {
    const { workspace, snapshot } = JSON.parse(news);
    try {
      const text = JSON.stringify(snapshot);
      await Promise.all([
        this.env.ALERTS.getByName(workspace).budget(text),
        this.env.TELEMETRY.getByName(workspace).budget(text),
      ]);
    } catch (error) {
      console.error(JSON.stringify({ event: "budget_news_failed", error: String(error) }));
      this.use((budget) => budget.untold());
      await this.armAt(Date.now() + this.backOffMs());
    }
  }

  #process(call, mayRecall) {
    return JSON.parse(this.transact((budget) => budget.sync(call, mayRecall, now())));
  }

  /** Asks Meters for what they do not need. One that cannot be reached keeps it, and is asked again some time. */
  async #recall(account, recall) {
    await Promise.allSettled(
      recall.map(async (wanted) => {
        const meter = this.env.METER.getByName(wanted.meter);
        const returned = await meter.recall(account, JSON.stringify(wanted));
        await meter.granted(account, this.transact((budget) => budget.returned(returned, now())));
      }),
    );
  }

  /** The Budget as people see it. An admin's call brings the terms along, for one that no request has come to. */
  status(call) {
    return this.transact((budget) => budget.status(call, now()));
  }

  async #arm() {
    if (this.alarmAt !== undefined && this.alarmAt > Date.now()) return;
    await this.armAt(this.use((budget) => budget.alarm_at(now())));
  }

  async alarm() {
    this.alarmAt = undefined;
    await this.ring();
  }

  async ring() {
    const { account, recall } = JSON.parse(this.transact((budget) => budget.wake(now())));
    await this.#recall(account, recall);
    await this.#after();
  }
}

/** One workspace's configuration. */
export class Workspace extends CoreObject {
  open(glue, sql) {
    return new glue.Workspace(sql);
  }

  /** Answers one admin request, and has the plans it changed delivered before it answers. */
  async handle(request) {
    const answer = JSON.parse(this.transact((workspace) => workspace.handle(request, random(128), now())));
    const { effects = [], more = false } = answer;
    if (effects.length === 0) return JSON.stringify(answer);
    // Armed first: if this object dies in the middle, the alarm delivers what it did not.
    await this.armAt(Date.now() + PUSH_GRACE_MS);
    const delivered = (await this.#push(effects)) && (!more || (await this.#pushPending()));
    if (!delivered) return inCore((glue) => glue.push_pending_response());
    delete answer.effects;
    delete answer.more;
    return JSON.stringify(answer);
  }

  /** Delivers everything that waits, one handful after the other. */
  async #pushPending() {
    for (;;) {
      const pending = JSON.parse(this.use((workspace) => workspace.pending()));
      if (pending.length === 0) return true;
      if (!(await this.#push(pending))) return false;
    }
  }

  async #push(effects) {
    const results = await Promise.allSettled(
      effects.map(async ({ key, version, plan, alerts_of, telemetry_of }) => {
        if (alerts_of) await this.env.ALERTS.getByName(alerts_of).applyConfig(plan);
        else if (telemetry_of) await this.env.TELEMETRY.getByName(telemetry_of).applyConfig(plan);
        else await this.env.METER.getByName(key).applyPlan(plan);
        this.transact((workspace) => workspace.pushed(key, version));
      }),
    );
    const failed = results.filter((result) => result.status === "rejected");
    for (const { reason } of failed) {
      console.error(JSON.stringify({ event: "plan_push_failed", error: String(reason) }));
    }
    return failed.length === 0;
  }

  /** Remembers corrections that their Budgets have. */
  corrected(record) {
    this.transact((workspace) => workspace.corrected(record));
  }

  /** For how many days the archive keeps events. */
  archiveDays() {
    return this.use((workspace) => workspace.archive_days());
  }

  async alarm() {
    this.alarmAt = undefined;
    if (await this.#pushPending()) this.failures = 0;
    else await this.armAt(Date.now() + this.backOffMs());
  }
}

/** The list of workspaces. */
export class Directory extends CoreObject {
  open(glue, sql) {
    return new glue.Directory(sql);
  }

  handle(request) {
    return this.transact((directory) => directory.handle(request, random(128), now()));
  }

  forget(id) {
    this.use((directory) => directory.forget(id));
  }
}
