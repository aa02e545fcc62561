// Files in the bucket: they go in and out as streams, and the bucket itself compares what goes in with its hash. What is
// stored where, and what is said of it, the core decides.

/** How R2 says that a body has another hash than the one it was announced with. */
const BAD_DIGEST = "(10037)";

/** Stores a body where nothing is, and says what came of it: which of the core's steps is next. */
export async function storeFile(bucket, { name, sha256 }, body) {
  if (bucket === undefined) return "unbound";
  let put;
  try {
    put = await bucket.put(name, body ?? "", { onlyIf: { etagDoesNotMatch: "*" }, sha256 });
  } catch (error) {
    if (String(error).includes(BAD_DIGEST)) return "differs";
    throw error;
  }
  if (put !== null) return "stored";
  const there = await bucket.head(name);
  if (there === null) throw new Error(`${name} was deleted while it was stored`);
  return there.checksums.toJSON().sha256 === sha256 ? "stored" : "taken";
}

/** Deletes what stands below a prefix and before a name. A failure is only noted: the next sweep finds it again. */
export async function sweep(bucket, { prefix, before }) {
  if (bucket === undefined) return;
  try {
    let cursor;
    do {
      const found = await bucket.list({ prefix, cursor });
      const old = found.objects.map(({ key }) => key).filter((key) => key < before);
      if (old.length > 0) await bucket.delete(old);
      cursor = found.truncated ? found.cursor : undefined;
    } while (cursor !== undefined);
  } catch (error) {
    console.error(JSON.stringify({ event: "sweep_failed", prefix, error: String(error) }));
  }
}

/** A file as an answer; `undefined` where there is none. */
export async function fileOf(bucket, { name, content_type, file }) {
  const object = bucket === undefined ? null : await bucket.get(name);
  if (object === null) return undefined;
  const headers = { "content-disposition": `attachment; filename="${file}"`, "x-content-type-options": "nosniff" };
  return { status: 200, content_type, headers, body: object.body };
}
