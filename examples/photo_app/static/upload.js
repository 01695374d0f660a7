// Asks the app for a ticket, uploads the file to the store with it, and tells the app that it is there.

export async function upload(file, by) {
  const ticket = await ask("/tickets", {
    by, content_type: file.type, size: file.size, sha256: await digest(file),
  });
  const answer = ticket.method === "PUT" ? await put(ticket, file) : await post(ticket, file);
  if (!answer.ok) throw new Error(`The store refused it: ${answer.status} ${code(await answer.text())}`);
  return ask("/photos", { reference: ticket.reference });
}

// Headers exactly as issued: they are signed. The browser adds Content-Length, which is signed as well.
export function put(ticket, body) {
  return fetch(ticket.url, { method: "PUT", headers: ticket.headers, body });
}

// Fields exactly as issued, and the file last: the store ignores what comes after it.
export function post(ticket, file) {
  const form = new FormData();
  for (const [name, value] of Object.entries(ticket.fields)) form.append(name, value);
  form.append("file", file);
  return fetch(ticket.url, { method: "POST", body: form });
}

async function ask(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error ?? `The app answered ${answer.status}.`);
  return said;
}

// SHA-256 in base64; browsers have it on https and on this machine only.
async function digest(file) {
  if (!globalThis.crypto?.subtle) return null;
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return btoa(String.fromCharCode(...bytes));
}

function code(xml) {
  return /<Code>(\w+)<\/Code>/.exec(xml)?.[1] ?? "";
}

document.getElementById("upload")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = document.getElementById("said");
  said.textContent = "Uploading …";
  try {
    await upload(document.getElementById("file").files[0], new FormData(event.target).get("by"));
    location.reload();
  } catch (error) {
    said.textContent = error.message;
  }
});
