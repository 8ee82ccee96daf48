// What the page knows without a screen: its token, its addresses, and why something did not work.

// The token after "#token=", as it was typed or percent-encoded.
export function tokenOf(hash) {
  const found = /(?:^#?|&)token=([^&]*)/.exec(hash);
  if (!found) return "";
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1];
  }
}

// A path of the server, beside the page: it may lie under a proxy's folder, and speak TLS.
export function beside(page, path) {
  return new URL(path, page).href;
}

export function socketBeside(page, path) {
  return beside(page, path).replace(/^http/, "ws");
}

const ENDED = {
  stopped: "",
  finished: "",
  disconnected: "The connection was lost.",
};

// Why a session ended, in a sentence; "" when somebody wanted it to. What the server said last
// counts more than that the connection is gone.
export function reasonOf(end, said) {
  if (said) return sentence(said);
  return end in ENDED ? ENDED[end] : sentence(end);
}

// Why a session did not begin, as the server tells a request that asks for nothing else: of a
// WebSocket that was refused a browser says nothing at all.
export async function reasonOfServer(ask) {
  try {
    const response = await ask();
    if (response.ok) return "The server is there, but no WebSocket reaches it: does a proxy pass them on?";
    const answer = await response.json().catch(() => ({}));
    return answer.message ? sentence(answer.message) : `The server answers with status ${response.status}.`;
  } catch {
    return "No connection to the server.";
  }
}

export function sentence(text) {
  const words = String(text).trim();
  return words && words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}
