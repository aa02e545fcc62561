// The Durable Object classes behind the requests: the books, alerts and telemetry. They decide nothing either.

import { putPart } from "./archive.mjs";
import { inCore, now, random } from "./core.mjs";
import { SendingObject, inTime } from "./object.mjs";

/** How long a receiver of alerts, or a collector, may take. */
const RECEIVER_TIMEOUT_MS = 15_000;
/** What is read of a collector's answer: a partial success says less than this. */
const ANSWER_MAX_BYTES = 16_384;

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
