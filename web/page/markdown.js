// Markdown to DOM nodes. A model's text is hostile: nothing here parses HTML, every piece of text becomes a text node,
// and links go to web addresses only. Blocks that did not change since the last call keep their nodes.

const rendered = new WeakMap();

/** Shows `source` in `element`; called again with a longer text, only the blocks that changed are made anew. */
export function show(element, source) {
  const blocks = split(source);
  const before = rendered.get(element) ?? [];
  let same = 0;
  while (same < blocks.length && same < before.length && blocks[same] === before[same]) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  for (const block of blocks.slice(same)) element.append(blockOf(block));
  rendered.set(element, blocks);
}

/** Top-level blocks: paragraphs, fences, lists and so on, each as its lines. */
function split(source) {
  const blocks = [];
  let lines = [];
  let fence = null;
  const end = () => {
    if (lines.length) blocks.push(lines.join('\n'));
    lines = [];
  };
  for (const line of source.replaceAll('\r\n', '\n').split('\n')) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (fence) {
      lines.push(line);
      if (mark && mark[0] === fence[0] && mark.length >= fence.length && /^[\s`~]*$/.test(line)) {
        end();
        fence = null;
      }
    } else if (mark) {
      end();
      fence = mark;
      lines.push(line);
    } else if (line.trim() === '') {
      if (isList(lines[0])) lines.push('');
      else end();
    } else {
      const loose = lines.length && lines.at(-1) === '' && !/^\s/.test(line) && !isList(line);
      const other = isList(line) && isList(lines[0]) && /^[-*+]/.test(line) !== /^[-*+]/.test(lines[0]) && !/^\s/.test(line);
      const heading = /^#{1,6}\s/.test(line);
      const starts = heading || (lines.length > 0 && kind(line) !== 'text' && kind(line) !== kind(lines[0]));
      if (loose || other || starts || /^#{1,6}\s/.test(lines[0] ?? '')) end();
      lines.push(line);
    }
  }
  end();
  return blocks;
}

const isList = (line) => line !== undefined && /^\s*([-*+]|\d{1,9}[.)])\s+/.test(line);

function kind(line) {
  if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) return 'rule';
  if (isList(line)) return 'list';
  if (/^ {0,3}>/.test(line)) return 'quote';
  return 'text';
}

function node(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function blockOf(block) {
  const lines = block.split('\n');
  const [first] = lines;
  if (/^ {0,3}(`{3,}|~{3,})/.test(first)) {
    const closed = lines.length > 1 && /^ {0,3}(`{3,}|~{3,})\s*$/.test(lines.at(-1));
    return node('pre', node('code', lines.slice(1, closed ? -1 : undefined).join('\n')));
  }
  const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(first);
  if (heading) return node(`h${Math.min(6, heading[1].length + 1)}`, ...inline(heading[2]));
  switch (kind(first)) {
    case 'rule':
      return node('hr');
    case 'quote': {
      const quote = node('blockquote');
      for (const inner of split(lines.map((l) => l.replace(/^ {0,3}> ?/, '')).join('\n')).slice(0, 200)) quote.append(nested(inner));
      return quote;
    }
    case 'list':
      return list(lines);
    default:
      return lines.length > 1 && /^\s*\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?)?\s*$/.test(lines[1]) && first.includes('|')
        ? table(lines)
        : paragraph(lines);
  }
}

/** A block inside a quote; quotes in quotes end here, so that a thousand `>` cost nothing. */
function nested(block) {
  return kind(block.split('\n')[0]) === 'quote' ? node('p', block) : blockOf(block);
}

function paragraph(lines) {
  const element = node('p');
  lines.forEach((line, i) => {
    if (i > 0) element.append(node('br'));
    element.append(...inline(line));
  });
  return element;
}

function list(lines, depth = 0) {
  const ordered = /^\s*\d/.test(lines[0]);
  const element = node(ordered ? 'ol' : 'ul');
  if (ordered) element.start = Number(/\d+/.exec(lines[0])[0]);
  const indent = /^\s*/.exec(lines[0])[0].length;
  for (let i = 0; i < lines.length;) {
    const text = lines[i].replace(/^\s*([-*+]|\d{1,9}[.)])\s+/, '');
    const inner = [];
    for (i++; i < lines.length && !(isList(lines[i]) && /^\s*/.exec(lines[i])[0].length <= indent); i++) inner.push(lines[i]);
    const item = node('li', ...inline(text));
    while (inner.length && inner.at(-1) === '') inner.pop();
    const at = inner.findIndex(isList);
    for (const line of at < 0 ? inner : inner.slice(0, at)) if (line.trim()) item.append(node('br'), ...inline(line.trim()));
    if (at >= 0 && depth < 8) item.append(list(inner.slice(at), depth + 1));
    else if (at >= 0) item.append(inner.slice(at).join('\n'));
    element.append(item);
  }
  return element;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((c) => c.trim());
  const row = (line, name) => node('tr', ...cells(line).map((c) => node(name, ...inline(c))));
  return node('table', node('thead', row(lines[0], 'th')), node('tbody', ...lines.slice(2).map((l) => row(l, 'td'))));
}

const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\*\*(?=\S)(.+?\S?)\*\*|(?<![\w*])\*(?=[^\s*])([^*]+?)\*(?![\w*])|(?<![\w_])_(?=[^\s_])([^_]+?)_(?![\w_])|~~(?=\S)(.+?)~~|!?\[([^\]]*)\]\((\S+?)\)|\bhttps?:\/\/[^\s<>()]+[^\s<>().,;:!?'"]/;

/** Text with emphasis, code and links as nodes. */
function inline(text, depth = 0) {
  const out = [];
  let rest = text;
  // Very long lines are shown as they are: no pattern is worth a frozen page.
  while (depth < 6 && rest.length < 20000) {
    const m = INLINE.exec(rest);
    if (!m) break;
    if (m.index > 0) out.push(rest.slice(0, m.index));
    rest = rest.slice(m.index + m[0].length);
    const more = (name, inner) => node(name, ...inline(inner, depth + 1));
    if (m[2] !== undefined) out.push(node('code', m[2]));
    else if (m[3] !== undefined) out.push(more('strong', m[3]));
    else if (m[4] !== undefined) out.push(more('em', m[4]));
    else if (m[5] !== undefined) out.push(more('em', m[5]));
    else if (m[6] !== undefined) out.push(more('del', m[6]));
    else out.push(link(m[8] ?? m[0], m[7], m[0]));
  }
  if (rest) out.push(rest);
  return out;
}

/** A link to a web address; anything else stays the text it is. */
function link(address, label, source) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return source;
  }
  if (!['http:', 'https:', 'mailto:'].includes(url.protocol)) return source;
  const a = node('a', label || address);
  a.href = url.href;
  a.target = '_blank';
  a.rel = 'noopener noreferrer nofollow';
  return a;
}
