// The smallest use of `ir-web`: one model, one question, the answer as it comes.
import { Ir } from 'ir-web';
import model from 'ir-web/models/ir-tiny.gguf?url';

const line = document.querySelector('#answer');
const ir = await Ir.load(new URL(model, document.baseURI), {
  onProgress: ({ loaded, total }) => { line.textContent = `${Math.round((100 * loaded) / total)} %`; },
});
line.textContent = '';
for await (const piece of ir.chat([{ role: 'user', content: 'Hello!' }], { temperature: 0 })) line.textContent += piece.text;
line.dataset.done = 'true';
