// Cloudflare Access: its token is signed by one of the team's keys. What it says, the core judges.

import { Keys, verified } from "./jwt.mjs";

const keys = new Keys();

/** The claims of the request's token, as text; `null` without a token that the team has signed. */
export async function vouchedFor(request, env) {
  const token = request.headers.get("cf-access-jwt-assertion");
  const team = env.TALLYGATE_ACCESS_TEAM_DOMAIN;
  if (token === null || !team || !new URL(request.url).pathname.startsWith("/dashboard/sign-in")) return null;
  // Only a test runtime asks a team that is not behind TLS.
  const origin = env.TALLYGATE_FAULTS === "on" && team.startsWith("http://") ? team : `https://${team}`;
  try {
    return await verified(token, ["RS256"], keys, `${origin}/cdn-cgi/access/certs`);
  } catch (error) {
    console.error(JSON.stringify({ event: "access_token_unreadable", error: String(error?.name) }));
    return null;
  }
}
