// The archive's objects: gzip in and out of the bucket. What belongs into one, and whether what came out is what went in,
// the core decides.

/** Puts a part where nothing is, and returns its size. What is there already must be the same lines. */
export async function putPart(bucket, { name }, lines) {
  const packed = new Response(new Response(lines).body.pipeThrough(new CompressionStream("gzip")));
  const bytes = await packed.arrayBuffer();
  const sha256 = await crypto.subtle.digest("SHA-256", bytes);
  const put = await bucket.put(name, bytes, { onlyIf: { etagDoesNotMatch: "*" }, sha256 });
  if (put !== null) return put.size;
  const there = await bucket.get(name);
  if (there === null || (await unpacked(there)) !== lines) throw new Error(`another object is at ${name}`);
  return there.size;
}

/** A part's lines, or why there are none: the two arguments that the core takes. */
export async function readPart(bucket, name) {
  if (bucket === undefined) return [undefined, "cannot be read, because no archive is bound"];
  let object;
  try {
    object = await bucket.get(name);
  } catch (error) {
    console.error(JSON.stringify({ event: "archive_read_failed", name, error: String(error) }));
    return [undefined, "cannot be read, because the bucket does not answer"];
  }
  if (object === null) return [undefined, "is missing"];
  try {
    return [await unpacked(object), ""];
  } catch {
    return [undefined, "cannot be decompressed"];
  }
}

const unpacked = (object) => new Response(object.body.pipeThrough(new DecompressionStream("gzip"))).text();
