// What all Durable Object classes have in common: a state machine in the Rust core, opened from the object's SQLite.

import { DurableObject } from "cloudflare:workers";
import { configure, inCore, isDeath, now } from "./core.mjs";

/** Longest wait before a delivery that failed is tried again. */
export const RETRY_CEILING_MS = 60_000;
/** An alarm that rings this soon is soon enough: arming it anew would be one more write. */
export const ALARM_SLACK_MS = 1_000;
/** How long an object waits for another one that nothing of a request depends on: its alarm has other work. */
const ASIDE_WAIT_MS = 10_000;
/** What is sent along one line before the others have their turn at the alarm. */
const MESSAGES_IN_A_ROW = 20;

/** A call to an object that nothing of a request depends on. */
export async function inTime(call) {
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
export class CoreObject extends DurableObject {
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

/**
 * An object that sends something out: along several lines at the same time, and along each of them one thing after the
 * other. It says with `due`, `dueAt` and `sendOne` what.
 */
export class SendingObject extends CoreObject {
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
