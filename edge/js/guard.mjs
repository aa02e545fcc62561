// One request's lifetime: receive, admit, forward, relay, settle. The core decides each step as a synchronous call; this
// file owns every await, so that no panic in Rust can lose a settlement: the worst that it loses is its own request,
// which is then settled here from what was seen (`recover`).

import { configure, inCore, now, random } from "./core.mjs";
import { borrow, enter, isHot, settleHere } from "./isolate.mjs";

/** The largest body that is read at all; policies can only lower it. Providers stop near 32 MB. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;
/** A body beyond this is not even read to be dropped. */
const DISCARDED_BODY_BYTES = 4 * MAX_BODY_BYTES;
/** The longest that a caller may take to send its body. */
const BODY_TIMEOUT_MS = 30_000;
/** How long an answer is read on after its caller left, to learn its cost. Cloudflare grants 30 s after a disconnect. */
const DRAIN_MS = 25_000;
/** The largest answer that is kept whole to be read for its usage. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** One timer a request looks after every time-out of it: a timer of its own for each costs more than the rest of this file. */
const TICK_MS = 200;
/** An answer that says it is no larger than this is read in one go. */
const SMALL_ANSWER_BYTES = 256 * 1024;
/** What is kept of a stream's two ends, for the case that its reader dies. */
const HEAD_BYTES = 8 * 1024;
const TAIL_BYTES = 16 * 1024;
/** Waits between attempts to deliver a settlement. */
const SETTLE_RETRIES_MS = [20, 200, 1_000, 5_000];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Serves one request to the data plane. */
export function serve(request, env, ctx) {
  configure(env);
  const work = new Guard(request, env, ctx).run();
  // The work goes on when the caller leaves: the provider bills the answer all the same.
  ctx.waitUntil(work.catch(() => {}));
  return work;
}

class Guard {
  constructor(request, env, ctx) {
    this.request = request;
    this.env = env;
    this.ctx = ctx;
    this.startedAt = now();
    this.asked = false;
    this.settled = false;
    this.dog = setInterval(() => this.check?.(), TICK_MS);
  }

  /** Calls `late` once, when `ms` have passed and nothing else has been waited for since. */
  within(ms, late) {
    let left = Math.max(1, Math.ceil(ms / TICK_MS));
    this.check = () => {
      left -= 1;
      if (left > 0) return;
      this.check = undefined;
      late();
    };
  }

  async run() {
    const body = await this.readBody();
    this.body = body.bytes;
    try {
      const { request } = this;
      this.exchange = inCore(
        (glue) =>
          new glue.Exchange(
            request.method,
            pathOf(request.url),
            JSON.stringify([...request.headers]),
            this.body,
            body.problem,
            random(32),
            this.startedAt,
          ),
      );
      const first = this.step((exchange) => exchange.begin(now()));
      const here = inCore(() => this.exchange.admitted_here());
      if (here !== undefined) {
        [this.meter, , this.answer] = here;
        this.lease = enter(here[1]);
      }
      return await this.follow(first);
    } catch (error) {
      return this.recover(error);
    } finally {
      if (!this.streaming) this.release();
    }
  }

  /** The caller's whole body, or why it could not be had. */
  async readBody() {
    const { request } = this;
    const none = new Uint8Array();
    if (request.body === null) return { bytes: none };
    let late = false;
    const isLate = new Promise((resolve) => {
      this.within(BODY_TIMEOUT_MS, () => {
        late = true;
        resolve();
      });
    });
    const length = Number(request.headers.get("content-length") ?? NaN);
    if (length <= MAX_BODY_BYTES) {
      try {
        const whole = await Promise.race([request.arrayBuffer(), isLate]);
        if (whole !== undefined) return { bytes: new Uint8Array(whole) };
      } catch {
        return { bytes: none, problem: "request_incomplete" };
      }
      return { bytes: none, problem: "request_timeout" };
    }
    return readUnmeasured(request.body.getReader(), isLate, () => late);
  }

  /** Gives the exchange's memory back; one of an instance that died has none. */
  release() {
    clearInterval(this.dog);
    try {
      this.exchange?.free();
    } catch {
      // It went with its instance.
    }
    this.exchange = undefined;
  }

  /** One call into the core; its answer is the next thing to do. */
  step(call) {
    return JSON.parse(inCore(() => call(this.exchange)));
  }

  async follow(first) {
    let step = first;
    for (;;) {
      switch (step.do) {
        case "respond":
          return this.respond(step);
        case "ask_meter":
          step = await this.askMeter(step);
          break;
        case "ask_ledgers":
          step = await this.askLedgers(step);
          break;
        case "wait":
          await pause(step.ms);
          step = this.step((exchange) => exchange.waited(now()));
          break;
        case "fetch":
          step = await this.fetch(step);
          break;
        case "relay":
          return this.relay(step);
        case "buffer":
          step = await this.buffer(step);
          break;
        default:
          throw new Error(`the core asked for an unknown step: ${step.do}`);
      }
    }
  }

  async askMeter({ meter, method, call }) {
    this.meter = meter;
    let answer;
    try {
      answer = await this.meterCall(method, call);
    } catch (error) {
      console.error(JSON.stringify({ event: "meter_failed", method, error: String(error) }));
      // An admission that failed set nothing aside that its expiry does not give back; once more, then refuse.
      try {
        answer = await this.meterCall(method, call);
      } catch {
        return this.step((exchange) => exchange.meter_failed());
      }
    }
    this.answer = answer;
    if (isHot(answer)) this.ctx.waitUntil(borrow(this.env, meter).catch(() => {}));
    return this.step((exchange) => exchange.answered(answer, now()));
  }

  /** Has Ledgers record outcomes. Recording the same again changes nothing, so each is asked twice at most. */
  async askLedgers({ calls }) {
    const record = ({ ledger, call }) => {
      const once = () => this.env.LEDGER.getByName(ledger).recordOutcomes(call);
      return once().catch(once);
    };
    let answers;
    try {
      answers = await Promise.all(calls.map(record));
    } catch (error) {
      console.error(JSON.stringify({ event: "ledger_failed", error: String(error) }));
      return this.step((exchange) => exchange.ledger_failed());
    }
    return this.step((exchange) => exchange.recorded(JSON.stringify(answers)));
  }

  meterCall(method, call) {
    const meter = this.env.METER.getByName(this.meter);
    if (method === "admit") return meter.admit(call);
    return method === "budget" ? meter.budget(call) : meter.ask(method, call);
  }

  async fetch({ url, method, headers, first_byte_timeout_ms, target }) {
    this.target = target;
    const bytes = inCore(() => this.exchange.upstream_body()) ?? this.body;
    this.abort = new AbortController();
    let timedOut = false;
    this.within(first_byte_timeout_ms, () => {
      timedOut = true;
      this.abort.abort();
    });
    try {
      this.asked = true;
      this.upstream = await fetch(url, {
        method,
        headers,
        body: bytes,
        redirect: "manual",
        signal: this.abort.signal,
      });
    } catch (error) {
      const why = timedOut ? "first_byte_timeout" : "connection_failed";
      return this.step((exchange) => exchange.unreachable(why, String(error?.message ?? error), now()));
    } finally {
      this.check = undefined;
    }
    const { status } = this.upstream;
    const received = JSON.stringify([...this.upstream.headers]);
    const step = this.step((exchange) => exchange.received(status, received, now()));
    if (step.do !== "relay" && step.do !== "buffer") {
      // This answer is not used: free its connection.
      this.upstream.body?.cancel().catch(() => {});
    }
    return step;
  }

  /** Reads a whole answer; the core prices it, and the next step responds with it. */
  async buffer({ idle_timeout_ms }) {
    const { bytes, ended } = await this.readAnswer(idle_timeout_ms);
    this.upstreamBytes = bytes;
    return this.step((exchange) => exchange.finished(ended, bytes, now()));
  }

  /** A provider's whole answer, and how it ended. */
  async readAnswer(idleMs) {
    const { body, headers } = this.upstream;
    if (body === null) return { bytes: new Uint8Array(), ended: "complete" };
    let ended = "complete";
    const stalled = () => {
      ended = "stalled";
      this.abort.abort();
    };
    const chunks = [];
    let size = 0;
    try {
      this.within(idleMs, stalled);
      if (Number(headers.get("content-length") ?? NaN) <= SMALL_ANSWER_BYTES) {
        return { bytes: new Uint8Array(await this.upstream.arrayBuffer()), ended };
      }
      const reader = body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.within(idleMs, stalled);
        size += value.byteLength;
        if (size > MAX_ANSWER_BYTES) {
          ended = "too_large";
          this.abort.abort();
          break;
        }
        chunks.push(value);
      }
    } catch {
      if (ended === "complete") ended = "died";
    } finally {
      this.check = undefined;
    }
    return { bytes: joined(chunks), ended };
  }

  respond({ status, headers, body, settlement, upstream_body }) {
    if (settlement) this.ctx.waitUntil(this.settle(settlement));
    // Who shows no key of ours has no Meter to be recorded at: the log has the code and the id, never the key.
    if (this.meter === undefined) {
      const { "x-tallygate-code": code, "x-tallygate-request-id": id } = Object.fromEntries(headers);
      console.log(JSON.stringify({ event: "refused", status, code, request_id: id }));
    }
    return new Response(upstream_body ? this.upstreamBytes : body, { status, headers });
  }

  /** Streams the answer through as it comes. */
  relay({ status, headers, idle_timeout_ms }) {
    this.streaming = true;
    const { readable, writable } = new IdentityTransformStream();
    this.ctx.waitUntil(this.pump(writable.getWriter(), idle_timeout_ms));
    return new Response(readable, { status, headers });
  }

  async pump(writer, idleMs) {
    const ends = new Ends();
    const reader = this.upstream.body.getReader();
    let core = true;
    let gone = false;
    let ended = "complete";
    let progress = 0;
    let seen = -1;
    let goneAt = 0;
    const leave = () => {
      if (gone) return;
      gone = true;
      goneAt = now();
    };
    let quiet = 0;
    // It notices a silent provider, a reader that takes nothing, and the end of the time in which an answer may be
    // read on without its caller.
    this.check = () => {
      quiet = progress === seen ? quiet + TICK_MS : 0;
      seen = progress;
      if (gone && now() - goneAt > DRAIN_MS) ended = "client_gone";
      else if (quiet < idleMs) return;
      else ended = this.writing ? "client_gone" : "stalled";
      this.abort.abort();
      writer.abort(new Error(ended)).catch(() => {});
    };
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        progress += 1;
        ends.add(value);
        let out = value;
        if (core) {
          try {
            out = this.tap(value);
          } catch (error) {
            // The stream goes on unread; its two ends are kept and read when it is over.
            core = false;
            console.error(JSON.stringify({ event: "stream_reader_died", error: String(error) }));
          }
        }
        if (gone || out === null) continue;
        this.writing = true;
        await writer.write(out).catch(leave);
        this.writing = false;
      }
    } catch {
      if (ended === "complete") ended = "died";
    }
    this.check = undefined;
    if (gone && ended === "died") ended = "client_gone";
    await this.finish(writer, { core, gone, ended, ends });
  }

  /** The chunk as it goes to the caller; `null` where nothing of it does. */
  tap(chunk) {
    if (!inCore(() => this.exchange.push(chunk))) return chunk;
    const replaced = this.exchange.replaced();
    return replaced.length === 0 ? null : replaced;
  }

  async finish(writer, { core, gone, ended, ends }) {
    let result = null;
    let held = new Uint8Array();
    if (core) {
      try {
        held = inCore(() => this.exchange.flush());
        result = this.step((exchange) => exchange.ended(ended, gone, now()));
      } catch (error) {
        console.error(JSON.stringify({ event: "stream_reader_died", error: String(error) }));
      }
    }
    result ??= this.rescue(ended, gone, ends);
    this.release();
    // The record is made before the caller sees the end, so that who asks for it then will find it.
    const settling = this.settle(result.settlement);
    await Promise.race([settling, pause(SETTLE_RETRIES_MS[1])]);
    if (!gone) {
      try {
        if (held.length > 0) await writer.write(held);
        if (ended === "complete") await writer.write(new TextEncoder().encode(result.last));
        // An answer that broke off upstream must not look whole to the caller.
        if (ended === "complete") await writer.close();
        else await writer.abort(new Error(`the provider's answer ended early: ${ended}`));
      } catch {
        // The caller left at the very end: the settlement stands.
      }
    }
    await settling;
  }

  /** The settlement of a stream whose reader died: the new instance reads the two ends that were kept. */
  rescue(ended, gone, ends) {
    const { head, tail } = ends.bytes();
    const { answer, target, upstream, startedAt } = this;
    return JSON.parse(
      inCore((glue) =>
        glue.rescue(answer, target, upstream.status, ended, gone, head, tail, startedAt, now()),
      ),
    );
  }

  /** The core died, or something else broke, before an answer began. The caller hears of it; the hold is settled. */
  recover(error) {
    console.error(JSON.stringify({ event: "request_failed", error: String(error?.message ?? error) }));
    this.abort?.abort();
    if (this.answer !== undefined) {
      try {
        const { answer, target, asked, startedAt } = this;
        const text = inCore((glue) => glue.give_up(answer, target ?? 0, asked, startedAt, now()));
        if (text !== undefined) this.ctx.waitUntil(this.settle(text));
      } catch (second) {
        // The Meter's alarm settles what nobody settled.
        console.error(JSON.stringify({ event: "settlement_left_to_alarm", error: String(second) }));
      }
    }
    const { status, headers, body } = JSON.parse(
      inCore((glue) => glue.gateway_error(new URL(this.request.url).pathname)),
    );
    return new Response(body, { status, headers });
  }

  /** Delivers a settlement. Idempotent at the Meter, so it is simply sent again until it is taken. */
  async settle(settlement) {
    if (this.settled) return;
    this.settled = true;
    if (this.lease !== undefined) {
      // A stream's caller does not wait for company.
      this.ctx.waitUntil(settleHere(this.env, this.meter, this.lease, settlement));
      return;
    }
    for (const wait of SETTLE_RETRIES_MS) {
      try {
        await this.env.METER.getByName(this.meter).settle(settlement);
        return;
      } catch (error) {
        console.error(JSON.stringify({ event: "settlement_failed", error: String(error) }));
        await pause(wait);
      }
    }
    // The hold expires and the Meter's alarm settles it.
  }
}

/** The first and the last bytes of a stream. */
class Ends {
  #head = [];
  #headBytes = 0;
  #tail = [];
  #tailBytes = 0;

  add(chunk) {
    if (this.#headBytes < HEAD_BYTES) {
      this.#head.push(chunk);
      this.#headBytes += chunk.byteLength;
      return;
    }
    this.#tail.push(chunk);
    this.#tailBytes += chunk.byteLength;
    while (this.#tailBytes - this.#tail[0].byteLength > TAIL_BYTES) {
      this.#tailBytes -= this.#tail.shift().byteLength;
    }
  }

  bytes() {
    return { head: joined(this.#head), tail: joined(this.#tail) };
  }
}

function joined(chunks) {
  if (chunks.length === 1) return chunks[0];
  const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.byteLength;
  }
  return all;
}

/** A body that does not say how large it is, or says that it is too large. */
async function readUnmeasured(reader, isLate, late) {
  const none = new Uint8Array();
  const chunks = [];
  let size = 0;
  try {
    for (;;) {
      const read = await Promise.race([reader.read(), isLate]);
      if (late() || read === undefined) return { bytes: none, problem: "request_timeout" };
      if (read.done) break;
      size += read.value.byteLength;
      if (size <= MAX_BODY_BYTES) chunks.push(read.value);
      else chunks.length = 0;
      // What is too large is read on for a while and dropped: a client that is still sending hears no answer.
      if (size > DISCARDED_BODY_BYTES) break;
    }
  } catch {
    return { bytes: none, problem: "request_incomplete" };
  } finally {
    reader.cancel().catch(() => {});
  }
  return size > MAX_BODY_BYTES ? { bytes: none, problem: "request_too_large" } : { bytes: joined(chunks) };
}

/** The path and query of an absolute URL. */
function pathOf(url) {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  return start < 0 ? "/" : url.slice(start);
}
