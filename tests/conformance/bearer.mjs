// SPDX-License-Identifier: Apache-2.0
// Loaded into the suite with `node --import`: adds the agent's token to what it sends, which the suite has no option for.
// Nothing else of a request is touched, and other addresses get nothing. The suite asks by fetch, by the package undici and by
// node:http; all of them publish each request on a channel before its head is written.
import { subscribe } from "node:diagnostics_channel";

const { OUTRIDER_ORIGIN: origin, OUTRIDER_TOKEN: token } = process.env;
const bearer = `Bearer ${token}`;
const { host } = new URL(origin);

subscribe("undici:request:create", ({ request }) => {
  if (String(request.origin) === origin) request.addHeader("authorization", bearer);
});
subscribe("http.client.request.created", ({ request }) => {
  if (request.getHeader("host") === host) request.setHeader("authorization", bearer);
});
