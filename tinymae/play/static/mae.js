// The tab "mae": hide patches of a photograph, and watch the masked autoencoder restore them.
// This file draws, and scales photographs to the size that the model takes; everything else is asked of tinymae.

export const texts = {
  en: {
    title: "MAE",
    intro: "Hide a part of a photograph: a small masked autoencoder paints what it expects there.",
    photo: "Photograph", upload: "or your own (choose it, or drop it here):",
    cat: "cat", coffee: "coffee", grace_hopper: "Grace Hopper", made_up: "made up", own: "your own",
    notAnImage: "The browser cannot read {name} as an image: expected a photograph such as a .jpg or .png.",
    mask: "Hide", random: "random", block: "blocks", grid: "grid", ratio: "ratio", seed: "another mask",
    detail: "Patches along the shorter side", pixels: "show single pixels",
    hiddenTitle: "What the model sees",
    hiddenRead: "Grey patches are hidden from the model. Click a patch to hide or show it, or drag over several; with a finger, "
      + "begin the drag sideways, for up and down scrolls the page. With the keyboard: arrow keys move the white frame, space "
      + "hides or shows.",
    hiddenLabel: "The photograph with its hidden patches in grey.",
    patchesLabel: "Photograph of {down} x {across} patches. Arrow keys move from patch to patch, space hides or shows one.",
    restoredTitle: "Reconstruction",
    restoredRead: "Where the first picture is grey, this one has what the model predicts. Visible pixels are kept "
      + "in the result, unchanged.",
    restoredLabel: "The photograph with its hidden patches restored by the model.",
    originalTitle: "Original",
    originalRead: "The photograph at the size that the model works on, cut at the edges if it is long. Compare the places that "
      + "were hidden.",
    originalLabel: "The photograph with nothing hidden.",
    hiddenState: "row {row}, column {col}: hidden", visibleState: "row {row}, column {col}: visible",
    count: "{count} of {all} patches are hidden.",
    nothingHidden: "Nothing is hidden: hide a patch, and the model has something to restore.",
    nothingVisible: "Nothing is visible: show a patch, and the model has something to start from.",
    errors: "Error on the hidden pixels", model: "the model", linear: "linear interpolation",
    harmonic: "smooth fill: each hidden pixel is the mean of its neighbours",
    best: "Smallest error: {name}.", equal: "The smallest errors are equal.",
    errorsRead: "The mean squared error of the hidden pixels, in the units of the model (black is -1.8, white is 2.2): "
      + "smaller is better. The other fills have learned nothing; a blur can have a smaller error than a sharp guess.",
    linearMissing: "Linear interpolation needs SciPy, which is not available here.",
    time: "The model took {model} ms; from the question to the new picture {all} ms.",
    attention: "show attention from the patch under the pointer", stack: "of the", encoder: "encoder", decoder: "decoder",
    layer: "layer",
    attentionRead: "The stronger the orange, the larger the attention weight from the framed patch (mean over heads). "
      + "The model sees {down} x {across} patches at a time: the orange frame. In the encoder only visible patches attend, to "
      + "visible ones and to the class token.",
    attentionHidden: "This patch is hidden, so the encoder does not have it. The decoder does: choose it above.",
    attentionStrongest: "Largest weight on a patch: {most}, at row {row}, column {col}; on the class token: {token}.",
    limits: "What it cannot do: it continues edges, shades and textures over a few patches, but knows no faces, letters or "
      + "objects. In a large hole it paints a blur. Nothing that it paints is evidence of what was there.",
  },
  zh: {
    title: "MAE",
    intro: "遮住照片的一部分，一个小型掩码自编码器会画出它认为那里应有的内容。",
    photo: "照片", upload: "或使用自己的照片（选择文件，或拖到这里）：",
    cat: "猫", coffee: "咖啡", grace_hopper: "格蕾丝·霍珀", made_up: "合成图", own: "自己的照片",
    notAnImage: "浏览器无法把 {name} 读成图像：需要 .jpg 或 .png 之类的照片。",
    mask: "遮挡方式", random: "随机", block: "分块", grid: "网格", ratio: "遮挡比例", seed: "换一个掩码",
    detail: "短边的图像块数", pixels: "显示单个像素",
    hiddenTitle: "模型看到的",
    hiddenRead: "灰色图像块对模型不可见。点击图像块可遮住或露出，拖动可连续操作；用手指拖动时请先横向移动，上下滑动会滚动页面。"
      + "键盘：方向键移动白框，空格键遮住或露出。",
    hiddenLabel: "被遮图像块显示为灰色的照片。",
    patchesLabel: "{down} x {across} 个图像块的照片。方向键在图像块间移动，空格键遮住或露出当前图像块。",
    restoredTitle: "还原结果",
    restoredRead: "第一幅图中的灰色位置，在这里是模型的预测；可见像素原样保留，没有改动。",
    restoredLabel: "被遮图像块由模型还原后的照片。",
    originalTitle: "原图",
    originalRead: "缩放到模型工作尺寸的照片（过长时裁去两端）。请对比被遮住的位置。",
    originalLabel: "没有遮挡的照片。",
    hiddenState: "第 {row} 行第 {col} 列：已遮住", visibleState: "第 {row} 行第 {col} 列：可见",
    count: "{all} 个图像块中遮住了 {count} 个。",
    nothingHidden: "没有遮住任何图像块：请先遮住一个，模型才有内容可还原。",
    nothingVisible: "所有图像块都被遮住了：请先露出一个，模型才有依据。",
    errors: "被遮像素上的误差", model: "模型", linear: "线性插值", harmonic: "平滑填充：每个被遮像素取相邻像素的均值",
    best: "误差最小：{name}。", equal: "最小误差相同。",
    errorsRead: "被遮像素的均方误差，以模型的像素单位计（黑为 -1.8，白为 2.2），越小越好。其他填充方法没有经过学习；"
      + "模糊的结果可能比清晰但猜错的结果误差更小。",
    linearMissing: "线性插值需要 SciPy，此处不可用。",
    time: "模型用时 {model} 毫秒；从发出请求到画出新图共 {all} 毫秒。",
    attention: "显示指针所在图像块的注意力", stack: "来自", encoder: "编码器", decoder: "解码器", layer: "层",
    attentionRead: "橙色越深，白框图像块对该图像块的注意力权重越大（各头取平均）。模型一次看 {down} x {across} 个图像块，即橙色框。"
      + "编码器中只有可见图像块和 class token，注意力只在它们之间。",
    attentionHidden: "该图像块已被遮住，编码器中没有它；解码器中有，请在上方选择解码器。",
    attentionStrongest: "图像块上的最大权重：{most}，位于第 {row} 行第 {col} 列；class token 上的权重：{token}。",
    limits: "它做不到的：它能把边缘、明暗和纹理延续几个图像块，但不认识人脸、文字或物体；大片空缺处只能画出模糊的颜色。"
      + "它画出的内容都不能作为那里原有内容的证据。",
  },
};

const SIDEWAYS = 8;                             // pixels that a finger moves before it paints

// What survives a change of language or of the tab.
const state = {
  model: null, name: "", source: null,          // of the photograph: the name, and a canvas or bitmap of its full size
  detail: 0, kind: "random", ratio: 0.75, seed: 1, smooth: true,
  rows: 0, cols: 0, rgb: null, letters: "",     // the photograph scaled for the model: bytes, and the same as base64
  hidden: null, restored: null, errors: null, modelMs: 0, allMs: 0,
  cursor: [0, 0], attends: true, stack: "encoder", layer: 0, attention: null,
};
let view = {};                                  // the elements that change
let say = null, ask = null;
let opened = 0;                                 // how many photographs were asked for: one that arrives late is dropped

export function show(root, sayText, askTinymae) {
  say = sayText;
  ask = askTinymae;
  root.innerHTML = `
    <p>${say("intro")}</p>
    <div class="mae-controls mae-drop" data-name="drop">
      <label>${say("photo")} <select data-name="sample"></select></label>
      <label>${say("upload")} <input type="file" accept="image/*" data-name="file"></label>
    </div>
    <p class="mae-note" role="alert" data-name="note"></p>
    <div class="mae-controls">
      <fieldset data-name="kinds"><legend>${say("mask")}</legend></fieldset>
      <label>${say("ratio")} <input type="range" min="0.05" max="0.95" step="0.05" data-name="ratio">
        <output data-name="percent"></output></label>
      <button type="button" data-name="seed">${say("seed")}</button>
      <fieldset data-name="details"><legend>${say("detail")}</legend></fieldset>
      <label><input type="checkbox" data-name="pixels"> ${say("pixels")}</label>
    </div>
    <div class="mae-pictures" data-name="pictures">
      ${figure("hidden", `<svg preserveAspectRatio="none" aria-hidden="true" data-name="marks"></svg>`)}
      ${figure("restored")}
      ${figure("original")}
    </div>
    <p><span data-name="count"></span> <span class="mae-read" aria-live="polite" data-name="cursor"></span></p>
    <div class="mae-controls">
      <label><input type="checkbox" data-name="attends"> ${say("attention")}</label>
      <label>${say("stack")} <select data-name="stack"></select></label>
      <label>${say("layer")} <select data-name="layer"></select></label>
    </div>
    <p class="mae-read" data-name="attentionRead"></p>
    <p class="mae-read" data-name="attentionNumbers"></p>
    <table class="mae-errors" data-name="errors"></table>
    <p role="status" data-name="verdict"></p>
    <p class="mae-read">${say("errorsRead")}</p>
    <p data-name="time"></p>
    <p class="mae-read">${say("limits")}</p>`;
  view = {};
  for (const element of root.querySelectorAll("[data-name]")) view[element.dataset.name] = element;
  listen();
  if (state.rgb) draw();
  else start();
}

// A picture with its title and the sentence that says how to read it; "more" lies on top of the canvas.
function figure(name, more = "") {
  return `<figure><div class="mae-picture${more && " mae-mask"}" data-name="${name}Box">
    <canvas role="img" aria-label="${say(name + "Label")}" data-name="${name}"></canvas>${more}</div>
    <figcaption><strong>${say(name + "Title")}</strong>${say(name + "Read")}</figcaption></figure>`;
}

async function start() {
  try {
    state.model ??= await ask("mae_model", {});
    state.detail ||= state.model.details[0];
    if (!state.source) await openSample(state.model.samples[0]);
  } catch {
    // The frame of the page has said what went wrong.
  }
}

// ---- The photograph ----

async function openSample(name) {
  const mine = ++opened, answer = await ask("mae_sample", {name});
  if (mine !== opened) return;
  const canvas = document.createElement("canvas");
  drawBytes(canvas, bytesOf(answer.pixels), answer.rows, answer.cols);
  open(name, canvas);
}

async function openFile(file) {
  const mine = ++opened;
  let image = null;
  try {
    image = await createImageBitmap(file);                      // upright, as the camera was held
  } catch {
    view.note.textContent = fill("notAnImage", {name: file.name});
    return;
  }
  if (mine !== opened) return;
  view.note.textContent = "";
  open("own", image);
}

function open(name, source) {
  state.name = name;
  state.source = source;
  fit();
}

// Scale the photograph so that one patch of it is one patch of the model, and hide a part of it.
function fit() {
  const {patch, grid, longest} = state.model, {width, height} = state.source;
  const shorter = state.detail, shape = Math.max(width, height) / Math.min(width, height);
  const single = shorter === Math.max(...grid);                 // one image of the model: its middle
  const longer = single ? shorter : Math.round(shorter * Math.min(shape, longest));
  const [down, across] = single ? grid : height > width ? [longer, shorter] : [shorter, longer];
  state.rows = down * patch;
  state.cols = across * patch;
  state.rgb = scaled(state.source, state.rows, state.cols);
  state.letters = letters(state.rgb);
  state.hidden = state.restored = state.errors = state.attention = null;
  state.cursor = [Math.min(state.cursor[0], down - 1), Math.min(state.cursor[1], across - 1)];
  draw();
  hide();
}

// The middle of an image as bytes of rows x cols pixels. It is halved until it is near its new size: so every pixel counts.
function scaled(source, rows, cols) {
  const scale = Math.min(source.width / cols, source.height / rows);
  let wide = cols * scale, high = rows * scale;
  let from = source, left = (source.width - wide) / 2, top = (source.height - high) / 2;
  for (;;) {
    const last = wide < 2 * cols, canvas = document.createElement("canvas");
    canvas.width = last ? cols : Math.ceil(wide / 2);
    canvas.height = last ? rows : Math.ceil(high / 2);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";                                 // behind what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(from, left, top, wide, high, 0, 0, canvas.width, canvas.height);
    if (last) return withoutOpacity(context.getImageData(0, 0, cols, rows).data);
    [from, left, top, wide, high] = [canvas, 0, 0, canvas.width, canvas.height];
  }
}

// ---- Questions ----

// A function that runs "work", never twice at once: calls that come meanwhile lead to one more run, with the newest state.
function newest(work) {
  let running = false, again = false;
  return async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch {
        // The frame of the page has said what went wrong.
      }
    } while (again);
    running = false;
  };
}

const size = () => ({rows: state.rows, cols: state.cols});
const masked = () => ({...size(), pixels: state.letters, hidden: state.hidden});

const hide = newest(async () => {
  const {rgb, kind, ratio, seed} = state;
  const answer = await ask("mae_hide", {...size(), kind, ratio, seed});
  if (rgb !== state.rgb) return;                                // another photograph was opened meanwhile
  state.hidden = answer.hidden;
  maskChanged();
});

function maskChanged() {
  state.attention = null;
  drawPictures();
  drawMarks();
  restore().then(attend);                                       // the picture first
}

const restore = newest(async () => {
  const {rgb, hidden} = state;
  if (!hidden) return;
  const able = hidden.flat().includes(1) && hidden.flat().includes(0), start = performance.now();
  const answer = able ? await ask("mae_restore", masked()) : null;                  // else the page says what is missing
  if (rgb !== state.rgb) return;
  state.restored = answer && bytesOf(answer.pixels);
  state.errors = answer && answer.errors;
  drawPictures();
  drawErrors();
  state.modelMs = answer ? answer.milliseconds : 0;
  state.allMs = answer ? performance.now() - start : 0;
  drawTime();
});

const attend = newest(async () => {
  const {rgb, hidden, cursor, attends} = state;
  if (!attends || !hidden) return;
  const answer = await ask("mae_attention", {...masked(), patch: cursor});
  if (rgb !== state.rgb || hidden !== state.hidden || cursor !== state.cursor) return;
  state.attention = answer;
  drawMarks();
});

// ---- What the user does ----

function listen() {
  view.sample.addEventListener("change", () => {
    view.note.textContent = "";
    openSample(view.sample.value).catch(() => {});
  });
  view.file.addEventListener("change", () => view.file.files.length && openFile(view.file.files[0]));
  for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    view.drop.addEventListener(event, (happened) => {
      happened.preventDefault();
      view.drop.classList.toggle("over", over);
      if (event === "drop" && happened.dataTransfer.files.length) openFile(happened.dataTransfer.files[0]);
    });
  }
  choices(view.kinds, ["random", "block", "grid"].map((kind) => [kind, say(kind)]), (kind) => {
    state.kind = kind;
    hide();
  });
  view.ratio.addEventListener("input", () => {
    state.ratio = Number(view.ratio.value);
    drawControls();
    hide();
  });
  view.seed.addEventListener("click", () => {
    state.seed += 1;
    hide();
  });
  view.pixels.addEventListener("change", () => {
    state.smooth = !view.pixels.checked;
    drawControls();
  });
  view.attends.addEventListener("change", () => {
    state.attends = view.attends.checked;
    state.attention = null;
    drawMarks();
    attend();
  });
  view.stack.addEventListener("change", () => {
    state.stack = view.stack.value;
    state.layer = Math.min(state.layer, state.model.layers[state.stack] - 1);
    drawControls();
    drawMarks();
  });
  view.layer.addEventListener("change", () => {
    state.layer = Number(view.layer.value);
    drawMarks();
  });
  listenToPatches();
}

// Click or drag over patches; what the first one becomes, the others become as well. A finger that moves up or down scrolls the
// page: the browser then cancels the pointer, and nothing was painted. So a finger paints when it is lifted, or moves sideways.
function listenToPatches() {
  const box = view.hiddenBox;
  let painted = null;                                           // 1 or 0 while the pointer paints
  let down = null;                                              // where a finger came down that has not painted yet
  const start = (event) => {
    moveTo(patchAt(event));
    painted = 1 - state.hidden[state.cursor[0]][state.cursor[1]];
    paint(painted);
    down = null;
  };
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.addEventListener("pointerdown", (event) => {
    if (!state.hidden || event.button || !event.isPrimary) return;
    box.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") down = event;
    else start(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (!state.hidden || !event.isPrimary) return;
    if (down) {
      const [across, along] = [event.clientX - down.clientX, event.clientY - down.clientY].map(Math.abs);
      if (across < SIDEWAYS || across < along) return;
      start(down);
    }
    for (const each of painted === null ? [event] : event.getCoalescedEvents?.() ?? [event]) {
      moveTo(patchAt(each));
      if (painted !== null) paint(painted);
    }
  });
  box.addEventListener("pointerup", () => {
    if (down && state.hidden) start(down);
    painted = down = null;
  });
  box.addEventListener("pointercancel", () => { painted = down = null; });
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  box.addEventListener("keydown", (event) => {
    if (!state.hidden || event.ctrlKey || event.altKey || event.metaKey) return;
    const [row, col] = state.cursor;
    if (event.key in steps) moveTo([row + steps[event.key][0], col + steps[event.key][1]]);
    else if (event.key === " ") paint(1 - state.hidden[row][col]);
    else return;
    event.preventDefault();                                     // or the page scrolls
  });
}

function patchAt(event) {
  const box = view.hiddenBox.getBoundingClientRect();
  return [Math.floor((event.clientY - box.top) / box.height * state.hidden.length),
    Math.floor((event.clientX - box.left) / box.width * state.hidden[0].length)];
}

function moveTo(place) {
  const counts = [state.hidden.length, state.hidden[0].length];
  const [row, col] = place.map((at, axis) => Math.min(Math.max(at, 0), counts[axis] - 1));
  if (row === state.cursor[0] && col === state.cursor[1]) return;
  state.cursor = [row, col];
  state.attention = null;
  drawMarks();
  attend();
}

function paint(value) {
  const [row, col] = state.cursor;
  if (state.hidden[row][col] === value) return;
  state.hidden = state.hidden.map((line, at) => at === row ? line.with(col, value) : line);
  maskChanged();
}

// ---- Drawing ----

function draw() {
  drawControls();
  drawPictures();
  drawMarks();
  drawErrors();
  drawTime();
}

function drawControls() {
  const {model} = state;
  const names = state.name === "own" ? [...model.samples, "own"] : model.samples;
  options(view.sample, names.map((name) => [name, say(name)]), state.name);
  if (!view.details.querySelector("button")) {
    choices(view.details, model.details.map((detail) => [detail, detail]), (detail) => {
      state.detail = detail;
      fit();
    });
  }
  press(view.kinds, state.kind);
  press(view.details, state.detail);
  view.ratio.value = state.ratio;
  view.percent.textContent = `${Math.round(100 * state.ratio)} %`;
  view.pixels.checked = !state.smooth;
  view.pictures.classList.toggle("mae-pixels", !state.smooth);
  view.attends.checked = state.attends;
  view.stack.disabled = view.layer.disabled = !state.attends;
  options(view.stack, Object.keys(model.layers).map((stack) => [stack, say(stack)]), state.stack);
  options(view.layer, Array.from({length: model.layers[state.stack]}, (_, layer) => [layer, layer + 1]), state.layer);
  view.attentionRead.textContent = fill("attentionRead", {down: model.grid[0], across: model.grid[1]});
}

function drawPictures() {
  const {rows, cols, rgb, hidden} = state;
  drawBytes(view.original, rgb, rows, cols);
  drawBytes(view.hidden, hidden ? greyed(rgb) : rgb, rows, cols);
  drawBytes(view.restored, state.restored ?? (hidden ? greyed(rgb) : rgb), rows, cols);
  if (hidden) view.hiddenBox.setAttribute("aria-label", fill("patchesLabel", {down: hidden.length, across: hidden[0].length}));
}

// The bytes of the photograph with its hidden patches in the model's grey.
function greyed(rgb) {
  const bytes = rgb.slice(), {hidden, rows, cols} = state, {patch, grey} = state.model;
  for (let row = 0; row < rows; row++) {
    const line = hidden[Math.floor(row / patch)];
    line.forEach((is, at) => is && bytes.fill(grey, 3 * (row * cols + at * patch), 3 * (row * cols + (at + 1) * patch)));
  }
  return bytes;
}

// On the first picture: edges of hidden patches, the cursor, and the attention weights from it.
function drawMarks() {
  const {hidden, cursor, attention} = state;
  if (!hidden) {
    view.marks.replaceChildren();
    return;
  }
  const [row, col] = cursor, all = hidden.flat(), count = all.filter(Boolean).length;
  view.marks.setAttribute("viewBox", `0 0 ${hidden[0].length} ${hidden.length}`);
  const marks = hidden.flatMap((line, at) => line.flatMap((is, x) => is ? [rectangle("hidden", x, at)] : []));
  view.attentionNumbers.textContent = "";
  if (attention) marks.push(...attentionMarks(attention));
  view.marks.replaceChildren(...marks, rectangle("cursor", col, row));
  view.count.textContent = count === 0 ? say("nothingHidden") : count === all.length ? say("nothingVisible")
    : fill("count", {count, all: all.length});
  view.cursor.textContent = fill(hidden[row][col] ? "hiddenState" : "visibleState", {row: row + 1, col: col + 1});
}

function attentionMarks({top, left, ...stacks}) {
  const [down, across] = state.model.grid, marks = [rectangle("tile", left, top, across, down)];
  if (!stacks[state.stack]) {
    view.attentionNumbers.textContent = say("attentionHidden");
    return marks;
  }
  const {patches, class_token: token} = stacks[state.stack][state.layer];
  const most = Math.max(...patches.flat()), at = patches.flat().indexOf(most);
  patches.forEach((line, row) => line.forEach((weight, col) => {
    if (weight === null) return;                                // the encoder does not have this patch
    const mark = rectangle("weight", left + col, top + row);
    mark.setAttribute("fill-opacity", 0.75 * weight / most);
    marks.push(mark);
  }));
  view.attentionNumbers.textContent = fill("attentionStrongest", {
    most, token, row: top + Math.floor(at / across) + 1, col: left + at % across + 1,
  });
  return marks;
}

function drawErrors() {
  const {errors} = state;
  if (!errors) {
    view.errors.replaceChildren();
    view.verdict.textContent = "";
    return;
  }
  const known = Object.entries(errors).filter(([, error]) => error !== null);
  const least = Math.min(...known.map(([, error]) => error)), best = known.filter(([, error]) => error === least);
  view.errors.innerHTML = `<caption>${say("errors")}</caption>` + known.map(([name, error]) =>
    `<tr class="${error === least ? "best" : ""}"><th scope="row">${say(name)}</th><td>${error}</td></tr>`).join("");
  view.verdict.textContent = (best.length > 1 ? say("equal") : fill("best", {name: say(best[0][0])}))
    + (errors.linear === null ? ` ${say("linearMissing")}` : "");
}

function drawTime() {
  view.time.textContent = state.allMs ? fill("time", {model: Math.round(state.modelMs), all: Math.round(state.allMs)}) : "";
}

// ---- Small helpers ----

function fill(key, values) {
  return say(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function choices(set, pairs, chosen) {
  for (const [value, text] of pairs) {
    const button = document.createElement("button");
    button.type = "button";
    button.value = value;
    button.textContent = text;
    button.addEventListener("click", () => {
      chosen(value);
      press(set, value);
    });
    set.append(button);
  }
}

function press(set, value) {
  for (const button of set.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === String(value));
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

function rectangle(name, x, y, width = 1, height = 1) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  element.setAttribute("class", name);
  for (const [key, value] of Object.entries({x, y, width, height})) element.setAttribute(key, value);
  return element;
}

function drawBytes(canvas, rgb, rows, cols) {
  canvas.width = cols;
  canvas.height = rows;
  const image = new ImageData(cols, rows);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    image.data.set(rgb.subarray(from, from + 3), to);
    image.data[to + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function withoutOpacity(rgba) {
  return Uint8Array.from({length: rgba.length / 4 * 3}, (_, at) => rgba[Math.floor(at / 3) * 4 + at % 3]);
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function letters(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
