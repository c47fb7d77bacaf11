// Asks the API of the process that has served this page. The token is sent in a header only, and kept for this tab only.

const KEY = "millrace.token";
const PATIENCE_MS = 12_000;

let token = sessionStorage.getItem(KEY);

/** Whether there is a token. */
export const signedIn = () => token !== null;

/** Takes a token, or forgets it (null). */
export function use(next) {
  token = next;
  if (next === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, next);
}

/** What the process says instead of an answer: HTTP status, code and words. Status 0: nobody answered. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** The JSON of a path below this page. Throws a Problem. */
export async function ask(path, parameters = {}) {
  const search = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(search ? `${path}?${search}` : path, {
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Problem(0, "no_answer", "the process does not answer");
  }
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Problem(response.ok ? 0 : response.status, "no_json", "the answer is none of Millrace's");
  }
  if (!response.ok) {
    const code = String(body.type ?? "").split(":").pop();
    throw new Problem(response.status, code, body.detail ?? response.statusText);
  }
  return body;
}

/** The rows of a named query as objects by column. Throws a Problem. */
export async function query(name, parameters = {}) {
  const given = Object.entries(parameters).map(([key, value]) => [`param_${key}`, value]);
  const { columns, rows } = await ask(`v1/queries/${name}`, Object.fromEntries(given));
  return rows.map((row) => Object.fromEntries(row.map((value, at) => [columns[at].name, value])));
}
