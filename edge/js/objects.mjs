// The Durable Object classes: they carry data between storage, other objects and the Rust core, and decide nothing.

import { DurableObject } from "cloudflare:workers";
import { putPart } from "./archive.mjs";
import { configure, inCore, isDeath, now, random } from "./core.mjs";

/** Longest wait before a delivery that failed is tried again. */
const RETRY_CEILING_MS = 60_000;
/** How long a change's own delivery may take before the alarm looks after it. */
const PUSH_GRACE_MS = 5_000;
/** An alarm that rings this soon is soon enough: arming it anew would be one more write. */
const ALARM_SLACK_MS = 1_000;

/** How long a Meter waits for the Alerts and Telemetry objects: its alarm has other work. */
const ASIDE_WAIT_MS = 10_000;
/** Calls to the Telemetry object in one alarm. */
const TELEMETRY_CALLS = 20;
/** How long a receiver of alerts, or a collector, may take. */
const RECEIVER_TIMEOUT_MS = 15_000;
/** What is read of a collector's answer: a partial success says less than this. */
const ANSWER_MAX_BYTES = 16_384;
/** What is sent along one line before the others have their turn at the alarm. */
const MESSAGES_IN_A_ROW = 20;

/** A call to an object that nothing of a request depends on. */
async function inTime(call) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("no answer")), ASIDE_WAIT_MS);
  });
  return Promise.race([call, late]).finally(() => clearTimeout(timer));
}

/** What the core sees of an object's SQLite: one statement with text parameters, rows as JSON. */
function sqlPort(storage) {
  return {
    exec(statement, params) {
      const rows = storage.sql.exec(statement, ...JSON.parse(params)).raw().toArray();
      return rows.length === 0 ? "[]" : JSON.stringify(rows);
    },
  };
}

/** An object whose state machine lives in the core and is rebuilt from storage whenever it was lost. */
class CoreObject extends DurableObject {
  #core;
  failures = 0;

  constructor(ctx, env) {
    super(ctx, env);
    configure(env);
  }

  /** The core's counterpart of this object, opened from storage when there is none. */
  open(_glue, _sql) {
    throw new Error("each object opens its own counterpart");
  }

  /** Runs one call that writes one statement at most, or none. */
  use(work) {
    return this.#attempt(() => this.#call(work));
  }

  /** Runs one call whose writes are one transaction: an error rolls them back. */
  transact(work) {
    return this.#attempt(() => this.ctx.storage.transactionSync(() => this.#call(work)));
  }

  /** An error drops the counterpart, whose memory may be ahead of storage. */
  #attempt(call) {
    try {
      return call();
    } catch (error) {
      this.#core = undefined;
      if (!isDeath(error) || error instanceof WebAssembly.RuntimeError) throw error;
    }
    // The counterpart belonged to an instance that died in another call: open it anew, once.
    return call();
  }

  #call(work) {
    return inCore((glue) => {
      this.#core ??= this.open(glue, sqlPort(this.ctx.storage));
      return work(this.#core);
    });
  }

  /** Arms the alarm where it is not set or set later. A write only when it changes something. */
  async armAt(ms) {
    if (ms === undefined || ms === null) return;
    if (this.alarmAt !== undefined && this.alarmAt <= ms) return;
    this.alarmAt = ms;
    await this.ctx.storage.setAlarm(Math.max(ms, Date.now()));
  }

  /** Forgets everything: a demo is over. */
  async remove() {
    await this.ctx.storage.deleteAlarm();
    await this.ctx.storage.deleteAll();
    this.#core = undefined;
    this.alarmAt = undefined;
  }

  backOffMs() {
    this.failures += 1;
    return Math.min(RETRY_CEILING_MS, 250 * 2 ** Math.min(this.failures, 12));
  }
}

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

/**
 * An object that sends something out: along several lines at the same time, and along each of them one thing after the
 * other. It says with `due`, `dueAt` and `sendOne` what.
 */
class SendingObject extends CoreObject {
  /** Lines on which something is on its way, so that a slow one delays no other. */
  #sending = new Map();

  async alarm() {
    this.alarmAt = undefined;
    try {
      await this.ring();
      this.failures = 0;
    } catch (error) {
      await this.tryAgain(error);
    }
  }

  ring() {
    return this.send();
  }

  /** Starts what is due, and waits for none of it. */
  async send() {
    for (const line of this.due()) {
      if (this.#sending.has(line)) continue;
      const sent = this.#drain(line);
      this.#sending.set(line, sent);
      this.ctx.waitUntil(sent);
    }
    await this.#arm();
  }

  /** Waits for what is on its way. */
  async settled() {
    await Promise.all(this.#sending.values());
  }

  /** While something is on its way, what is due behind it is no reason to ring at once. */
  async #arm() {
    const at = this.dueAt();
    if (at === undefined) return;
    await this.armAt(this.#sending.size > 0 ? Math.max(at, Date.now() + ALARM_SLACK_MS) : at);
  }

  /** Sends along one line, one thing after the other, until one does not arrive. */
  async #drain(line) {
    // Whoever starts it notes it down first.
    await undefined;
    try {
      for (let sent = 0; sent < MESSAGES_IN_A_ROW; sent += 1) {
        if (!(await this.sendOne(line))) break;
      }
    } catch (error) {
      await this.tryAgain(error, line);
      return;
    } finally {
      this.#sending.delete(line);
    }
    await this.#arm();
  }

  async tryAgain(error, line) {
    console.error(JSON.stringify({ event: `${this.constructor.name.toLowerCase()}_failed`, line, error: String(error) }));
    await this.armAt(Date.now() + this.backOffMs());
  }
}

/** One workspace's events of one month. */
export class Ledger extends SendingObject {
  open(glue, sql) {
    return new glue.Ledger(sql);
  }

  apply(batch) {
    const answer = this.transact((ledger) => ledger.apply(batch));
    // The books do not wait for the archive, and do not fail with it.
    this.ctx.waitUntil(this.send().catch((error) => this.tryAgain(error)));
    return answer;
  }

  recordOutcomes(call) {
    return this.transact((ledger) => ledger.record_outcomes(call));
  }

  query(method, payload) {
    return this.use((ledger) => ledger.query(method, payload));
  }

  trueUp(lines) {
    return this.transact((ledger) => ledger.true_up(lines));
  }

  due() {
    return this.dueAt() <= now() ? ["archive"] : [];
  }

  dueAt() {
    return this.use((ledger) => ledger.archive_at());
  }

  /** Does one thing for the archive. What fails is noted down, and tried again later. */
  async sendOne() {
    const next = this.transact((ledger) => ledger.archive(this.ctx.id.name, now()));
    if (next === undefined) return false;
    const job = JSON.parse(next);
    try {
      await this.#carryOut(job);
      return true;
    } catch (error) {
      console.error(JSON.stringify({ event: "archive_failed", job: job.do, error: String(error) }));
      this.transact((ledger) => ledger.archive_failed(String(error), now()));
      return false;
    }
  }

  async #carryOut(job) {
    if (job.do === "write") {
      const size = await putPart(this.env.ARCHIVE, job.part, job.lines);
      this.transact((ledger) => ledger.written(job.part.n, size, now()));
    } else if (job.do === "delete") {
      await this.env.ARCHIVE.delete(job.name);
      this.transact((ledger) => ledger.deleted(job.n));
    } else {
      const days = await this.env.WORKSPACE.getByName(this.ctx.id.name.split(":")[0]).archiveDays();
      this.transact((ledger) => ledger.expire(days, now()));
    }
  }
}

/** One workspace's alerts, and the messages about them. A line leads to each receiver. */
export class Alerts extends SendingObject {
  open(glue, sql) {
    return new glue.Alerts(sql);
  }

  async ingest(batch) {
    this.transact((alerts) => alerts.ingest(batch, now()));
    await this.send();
  }

  async budget(snapshot) {
    this.transact((alerts) => alerts.budget(snapshot, now()));
    await this.send();
  }

  async findings(findings) {
    this.transact((alerts) => alerts.findings(findings, now()));
    await this.send();
  }

  async applyConfig(plan) {
    this.transact((alerts) => alerts.apply_config(plan, now()));
    await this.send();
  }

  /** Answers the control plane. */
  async query(method, payload) {
    if (method === "test") return this.#test(payload);
    const answer = this.transact((alerts) => alerts.query(method, payload, now()));
    await this.send();
    return answer;
  }

  async #test(receiver) {
    const message = JSON.parse(this.use((alerts) => alerts.test_message(receiver, draw(), now())));
    const ended = message.error === undefined ? await post(message) : message;
    return this.use((alerts) => alerts.tested(receiver, JSON.stringify(ended)));
  }

  async ring() {
    this.transact((alerts) => alerts.wake(now()));
    try {
      await this.#review();
    } catch (error) {
      // What was due is leased: the alarm rings for it again.
      console.error(JSON.stringify({ event: "review_failed", error: String(error) }));
    }
    await this.send();
  }

  /** Asks the Ledgers for the review of a week that is due, and queues it for its receivers. */
  async #review() {
    const due = this.transact((alerts) => alerts.review_due(now()));
    if (due === undefined) return;
    const { names, method, payload } = JSON.parse(due);
    const answers = await Promise.all(names.map((name) => this.env.LEDGER.getByName(name).query(method, payload)));
    const next = JSON.parse(inCore((glue) => glue.admin_merge(method, payload, JSON.stringify(answers))));
    if (next.do !== "alerts") throw new Error("the ledgers gave no usable answer");
    this.transact((alerts) => alerts.deliver_review(next.payload, now()));
  }

  due() {
    return JSON.parse(this.use((alerts) => alerts.due_receivers(now())));
  }

  dueAt() {
    return this.use((alerts) => alerts.alarm_at());
  }

  async sendOne(receiver) {
    const next = this.transact((alerts) => alerts.take(receiver, draw(), now()));
    if (next === undefined) return false;
    const message = JSON.parse(next);
    const ended = JSON.stringify(await post(message));
    return this.transact((alerts) => alerts.delivered(message.id, ended, draw(), now()));
  }
}

/** One workspace's counters, and what waits for its OpenTelemetry collector. A line is a signal. */
export class Telemetry extends SendingObject {
  open(glue, sql) {
    return new glue.Telemetry(sql);
  }

  async ingest(batch) {
    this.transact((telemetry) => telemetry.ingest(batch, now()));
    await this.send();
  }

  budget(snapshot) {
    this.use((telemetry) => telemetry.budget(snapshot));
  }

  async applyConfig(plan) {
    this.transact((telemetry) => telemetry.apply_config(plan, now()));
    await this.send();
  }

  /**
   * Answers the control plane. Open alerts are the Alerts object's to count, and Ledgers know how their archives stand;
   * without an answer they are left out.
   */
  async query(name, method, payload) {
    const question = JSON.parse(payload);
    if (method === "metrics") {
      [question.alerts, question.archives] = await Promise.all([this.#openAlerts(name), this.#archives(question)]);
    }
    return this.use((telemetry) => telemetry.query(method, JSON.stringify(question), now()));
  }

  async #openAlerts(name) {
    try {
      return JSON.parse(JSON.parse(await inTime(this.env.ALERTS.getByName(name).query("open", ""))).body);
    } catch (error) {
      console.error(JSON.stringify({ event: "alerts_not_counted", error: String(error) }));
      return undefined;
    }
  }

  async #archives({ ledgers }) {
    try {
      const asked = ledgers.map((ledger) => inTime(this.env.LEDGER.getByName(ledger).query("archive_gauge", String(now()))));
      return (await Promise.all(asked)).map((answer) => JSON.parse(answer));
    } catch (error) {
      console.error(JSON.stringify({ event: "archives_not_asked", error: String(error) }));
      return undefined;
    }
  }

  due() {
    return JSON.parse(this.use((telemetry) => telemetry.due(now())));
  }

  dueAt() {
    return this.use((telemetry) => telemetry.alarm_at());
  }

  async sendOne(signal) {
    const next = this.transact((telemetry) => telemetry.take(signal, draw(), now()));
    if (next === undefined) return false;
    const ended = await post(JSON.parse(next), ANSWER_MAX_BYTES);
    const answer = JSON.stringify(ended);
    const followed = this.transact((telemetry) => telemetry.ended(signal, answer, draw(), now()));
    const { again, note } = JSON.parse(followed);
    if (note !== undefined) {
      console.error(JSON.stringify({ event: "telemetry_export", signal, status: ended.status, note }));
    }
    return again;
  }
}

/** 32 random bits. */
const draw = () => new DataView(random(4).buffer).getUint32(0);

/**
 * Makes one attempt at a message, and reads so many bytes of the answer. Where it is redirected to is nobody's address: it
 * is not followed.
 */
async function post({ url, headers, body }, answerBytes = 0) {
  try {
    const signal = AbortSignal.timeout(RECEIVER_TIMEOUT_MS);
    const response = await fetch(url, { method: "POST", headers, body, redirect: "manual", signal });
    if (answerBytes === 0) {
      await response.body?.cancel();
      return { status: response.status };
    }
    const answer = await firstText(response.body, answerBytes);
    return { status: response.status, retry_after: response.headers.get("retry-after"), body: answer };
  } catch (error) {
    return { error: error?.name === "TimeoutError" ? "timeout" : "connection_failed" };
  }
}

/** The beginning of a body as text. */
async function firstText(body, most) {
  if (body === null) return "";
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let text = "";
  for (let read = 0; read < most; ) {
    const { done, value } = await reader.read();
    if (done) return text;
    read += value.byteLength;
    text += decoder.decode(value, { stream: true });
  }
  await reader.cancel();
  return text;
}
