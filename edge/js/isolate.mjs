// What this isolate may admit by itself: subleases from the Meters of busy keys. The core decides under them; this file
// asks for them, settles in batches what was admitted, and gives them back.
//
// A request's promises belong to its own context, so no request waits for another's here: whoever puts the first
// settlement into a batch sends the batch.

import { inCore, now } from "./core.mjs";

/** How long settlements wait for company. A record is late by as much, and an isolate that dies loses as much. */
const BATCH_MS = 20;
/** How long the core admits under one sublease: as `SUBLEASE_MS` there. */
const SUBLEASE_MS = 2_000;
/** A key's next sublease is asked for this long after the one before, at the earliest. */
const PAUSE_MS = 200;
/** Waits between attempts to deliver a batch. */
const RETRIES_MS = [20, 200, 1_000, 5_000];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** By name: the subleases under which requests may still begin. */
const leases = new Map();
/** By key: the newest of them. */
const current = new Map();
/** By key: settlements that wait, and subleases that are done with. */
const batches = new Map();
/** By key: when a sublease was last asked for. */
const asked = new Map();

/** A request was admitted under this sublease. */
export function enter(id) {
  const lease = leases.get(id) ?? { id, inFlight: 0, over: true };
  lease.inFlight += 1;
  return lease;
}

/** Whether the Meter's answer says that the key is busy and far from its limits. */
export const isHot = (answer) => answer.startsWith('{"admit":{"hot":true');

/** Asks the Meter for a sublease, and gives it back when its time is over. */
export async function borrow(env, key) {
  const since = now();
  if (since - (asked.get(key) ?? -Infinity) < PAUSE_MS) return;
  asked.set(key, since);
  if (asked.size > 1_000) asked.clear();
  const version = inCore((glue) => glue.isolate_version(key));
  const offer = await env.METER.getByName(key).sublet(version);
  if (offer === undefined || offer === null) return;
  const id = inCore((glue) => glue.isolate_take(key, offer, since));
  const lease = { id, inFlight: 0, over: false };
  leases.set(id, lease);
  const before = current.get(key);
  current.set(key, lease);
  if (before !== undefined) retire(env, key, before);
  await pause(SUBLEASE_MS + BATCH_MS);
  if (current.get(key) === lease) current.delete(key);
  await retire(env, key, lease);
}

/** No request begins under this sublease any more. It goes back when the last one is settled. */
function retire(env, key, lease) {
  if (lease.over) return undefined;
  lease.over = true;
  leases.delete(lease.id);
  if (lease.inFlight > 0) return undefined;
  const { batch, fresh } = batchOf(key);
  batch.ended.push(lease.id);
  return fresh ? deliver(env, key, batch) : undefined;
}

/** Settles with the next batch. The promise is for `waitUntil`; the record is there within 20 ms or so. */
export function settleHere(env, key, lease, settlement) {
  const { batch, fresh } = batchOf(key);
  batch.settlements.push(settlement);
  lease.inFlight -= 1;
  if (lease.over && lease.inFlight === 0) batch.ended.push(lease.id);
  return fresh ? deliver(env, key, batch) : Promise.resolve();
}

function batchOf(key) {
  const waiting = batches.get(key);
  if (waiting !== undefined) return { batch: waiting, fresh: false };
  const batch = { settlements: [], ended: [] };
  batches.set(key, batch);
  return { batch, fresh: true };
}

/** Idempotent at the Meter, so a batch is simply sent again until it is taken. */
async function deliver(env, key, batch) {
  await pause(BATCH_MS);
  batches.delete(key);
  const settlements = `[${batch.settlements.join(",")}]`;
  const ended = JSON.stringify(batch.ended);
  for (const wait of RETRIES_MS) {
    try {
      await env.METER.getByName(key).settleAll(settlements, ended);
      return;
    } catch (error) {
      console.error(JSON.stringify({ event: "settlement_failed", error: String(error) }));
      await pause(wait);
    }
  }
  // The Meter takes the subleases back when their time is over, and records what it never heard of as interrupted.
}
