// The baseline: a Worker that only passes the request on. What any gateway on this runtime costs at least.

export default {
  fetch(request, env) {
    const headers = new Headers(request.headers);
    headers.set("authorization", `Bearer ${env.CREDENTIAL}`);
    const { pathname } = new URL(request.url);
    return fetch(env.UPSTREAM + pathname, { method: request.method, headers, body: request.body });
  },
};
