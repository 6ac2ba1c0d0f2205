// What the page remembers between visits: the conversation, the settings, and which model was open. In this browser's
// local storage; where that is refused (a private window), in memory only, and `lasting` says so.

const KEY = 'ir-page-1';
let memory = null;
export let lasting = true;

/** What was remembered, or an empty start. */
export function recall() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? 'null');
    if (found && typeof found === 'object') return found;
  } catch {
    lasting = false;
  }
  return memory ?? {};
}

/** Remembers `state`; says whether it will outlive the page. */
export function remember(state) {
  memory = state;
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
    lasting = true;
  } catch {
    lasting = false;
  }
  return lasting;
}

/** Messages as they were kept, with anything that is none left out. */
export function soundMessages(list) {
  if (!Array.isArray(list)) return [];
  return list.filter((m) => ['user', 'assistant'].includes(m?.role) && typeof m.content === 'string');
}
