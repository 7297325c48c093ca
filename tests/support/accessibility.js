// What the browser knows of a page's text and keyboard focus; accessibility.py asks for it.
(() => {
  const SMALL_TEXT = 4.5; // the least contrast of WCAG AA; large and bold text needs less
  const LARGE_TEXT = 3;
  const INTERACTIVE =
    "a[href], button, input:not([type=hidden]), select, textarea, summary, audio[controls], " +
    "video[controls], [contenteditable=true], [tabindex]";
  const COMPOSITE =
    "[role=tree], [role=tablist], [role=listbox], [role=menu], [role=grid], [role=radiogroup]";
  const BLACK = [0, 0, 0, 1];
  const WHITE = [255, 255, 255, 1];

  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const colors = new Map();
  function rgba(text) {
    if (!colors.has(text)) {
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = text;
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      colors.set(text, [r, g, b, a / 255]);
    }
    return colors.get(text);
  }
  const over = ([r, g, b, a], [R, G, B]) =>
    [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  function luminance(color) {
    const [r, g, b] = color
      .slice(0, 3)
      .map((v) => (v / 255 <= 0.04045 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(one, other) {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }

  const isShown = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  function describe(element) {
    const id = element.id ? `#${element.id}` : "";
    const names = typeof element.className === "string" ? element.className : "";
    const text = (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${element.localName}${id} class="${names}">${text}`;
  }

  // The colors that an element may be painted on: several where a gradient or a picture is below.
  function backdrops(element) {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      layers.push({ at, style });
      if (style.backgroundImage === "none" && rgba(style.backgroundColor)[3] === 1) break;
    }
    let below = [WHITE];
    for (const { at, style } of layers.reverse()) {
      const opacity = Number(style.opacity);
      const faded = ([r, g, b, a]) => [r, g, b, a * opacity];
      if (coversMedia(at, style)) below = [...below, BLACK, WHITE];
      const fill = faded(rgba(style.backgroundColor));
      below = below.map((color) => over(fill, color));
      const image = style.backgroundImage;
      if (image.includes("url(") && image.replaceAll(/url\("data:image\/svg[^)]*\)/g, "") === image)
        below = [...below, BLACK, WHITE];
      const stops = image.match(/(?:rgba?|oklab|oklch|color)\([^()]*\)/g) ?? [];
      below = [...below, ...stops.flatMap((stop) => below.map((c) => over(faded(rgba(stop)), c)))];
    }
    return below;
  }
  function coversMedia(element, style) {
    if (!["absolute", "fixed"].includes(style.position) || !element.offsetParent) return false;
    const box = element.getBoundingClientRect();
    return [...element.offsetParent.querySelectorAll("canvas, img, video")].some((media) => {
      if (element.contains(media) || !isShown(media)) return false;
      const other = media.getBoundingClientRect();
      return (
        box.left < other.right &&
        other.left < box.right &&
        box.top < other.bottom &&
        other.top < box.bottom
      );
    });
  }

  function opacityOf(element) {
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    return opacity;
  }
  function isLarge(style) {
    const size = parseFloat(style.fontSize);
    return size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  }
  // Return the flaw of a text that `style` draws in `element`, or null.
  function flaw(element, style, text) {
    const isSvg = element instanceof SVGElement;
    const [r, g, b, a] = rgba(isSvg ? style.fill : style.color);
    const ink = [r, g, b, a * opacityOf(element)];
    const grounds = backdrops(element);
    const ratio = Math.min(...grounds.map((ground) => contrast(over(ink, ground), ground)));
    const least = isLarge(style) ? LARGE_TEXT : SMALL_TEXT;
    if (ratio >= least) return null;
    return `contrast ${ratio.toFixed(2)} of ${least} for "${text.slice(0, 40)}" in ${describe(element)}`;
  }
  function isOff(element) {
    return element.closest(":disabled, [aria-disabled=true]") !== null;
  }
  function contrastFlaws() {
    const flaws = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const range = document.createRange();
    while (texts.nextNode()) {
      const node = texts.currentNode;
      const element = node.parentElement;
      const text = node.data.trim();
      if (!text || !isShown(element) || isOff(element)) continue;
      if (element.closest("script, style, noscript, option, title")) continue;
      range.selectNodeContents(node);
      const { width, height, right, left } = range.getBoundingClientRect();
      const isClipped = element.clientWidth === 1 && element.clientHeight === 1;
      if (width < 1 || height < 1 || right <= 0 || left >= innerWidth || isClipped) continue;
      flaws.add(flaw(element, getComputedStyle(element), text));
    }
    for (const element of document.body.querySelectorAll("*")) {
      if (!isShown(element) || isOff(element)) continue;
      for (const part of ["::before", "::after"]) {
        const style = getComputedStyle(element, part);
        const text = /^"(.*)"$/.exec(style.content)?.[1] ?? "";
        const shown = style.display !== "none" && Number(style.opacity) > 0;
        if (shown && /\p{L}/u.test(text)) flaws.add(flaw(element, style, text));
      }
      if (element.matches("input, textarea") && element.placeholder && !element.value)
        flaws.add(flaw(element, getComputedStyle(element, "::placeholder"), element.placeholder));
      else if (element.matches("input:not([type=file], [type=checkbox], [type=radio]), select"))
        flaws.add(flaw(element, getComputedStyle(element), element.value));
    }
    return [...flaws].filter(Boolean);
  }

  // How an element and what stands for it look; focus has to change it.
  function look(element) {
    const labels = [...(element.labels ?? []), element.nextElementSibling];
    const parts = [element, element.parentElement, ...labels];
    return parts
      .filter(Boolean)
      .map((part) => {
        const style = getComputedStyle(part);
        const hasOutline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
        const outline = hasOutline && rgba(style.outlineColor)[3] > 0.3 ? style.outlineWidth : "";
        const paint = [style.borderColor, style.backgroundColor, style.color];
        return [outline, style.boxShadow, ...paint, style.textDecorationLine].join(";");
      })
      .join("|");
  }
  function isOnPage(element) {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && box.right > 0 && box.left < innerWidth;
  }
  const isClickable = (label) =>
    isShown(label) && isOnPage(label) && getComputedStyle(label).cursor === "pointer";
  // An invisible control, such as the radio button of a styled label, shows by its label.
  function isUsable(element) {
    const modal = document.querySelector("dialog:modal");
    if (element.closest("[inert]") || (modal && !modal.contains(element))) return false;
    return isShown(element) || [...(element.labels ?? [])].some(isClickable);
  }

  const keyboard = { looks: new Map(), visited: new Set(), flaws: [] };
  function startTabbing(pointerOnly) {
    document.activeElement?.blur();
    scrollTo(0, 0);
    Object.assign(keyboard, { looks: new Map(), visited: new Set(), flaws: [], pointerOnly });
    for (const element of document.querySelectorAll(INTERACTIVE)) keyboard.looks.set(element, null);
    for (const element of keyboard.looks.keys()) keyboard.looks.set(element, look(element));
    return keyboard.looks.size;
  }
  // Note the focused element; return whether the round is over.
  function afterTab() {
    for (const animation of document.getAnimations())
      if (animation instanceof CSSTransition) animation.finish();
    const element = document.activeElement;
    if (!element || element === document.body) return keyboard.visited.size > 0;
    if (keyboard.visited.has(element)) return true;
    keyboard.visited.add(element);
    const before = keyboard.looks.get(element);
    const labels = [...(element.labels ?? []), element.nextElementSibling];
    const seen = isShown(element) ? [element] : labels.filter(Boolean);
    if (!seen.some(isOnPage))
      keyboard.flaws.push(`focus off the page: ${describe(element)}`);
    if (before !== undefined && before === look(element))
      keyboard.flaws.push(`no visible focus: ${describe(element)}`);
    return false;
  }
  function isReached(element) {
    if ([element, ...(element.labels ?? [])].some((each) => keyboard.visited.has(each))) return true;
    if (element.type === "radio" && element.name) {
      const group = document.querySelectorAll(`input[type=radio][name="${element.name}"]`);
      return [...group].some((other) => keyboard.visited.has(other));
    }
    const composite = element.closest(COMPOSITE);
    return composite !== null && [...keyboard.visited].some((other) => composite.contains(other));
  }
  function keyboardFlaws() {
    const flaws = [...keyboard.flaws];
    const { pointerOnly } = keyboard;
    for (const element of keyboard.looks.keys()) {
      const isMeant = element.matches("a, button, input, select, textarea, summary, [role]");
      const isOut = element.tabIndex < 0 && !isMeant;
      if (!element.isConnected || !isUsable(element) || isOff(element) || isOut) continue;
      if (!isReached(element)) flaws.push(`not reached by Tab: ${describe(element)}`);
    }
    for (const element of document.body.querySelectorAll("*")) {
      const own = getComputedStyle(element).cursor === "pointer";
      const inherited = getComputedStyle(element.parentElement).cursor === "pointer";
      if (!own || inherited || !isUsable(element)) continue;
      if (element.closest(`${INTERACTIVE}, label`)) continue;
      if (pointerOnly && element.matches(pointerOnly)) continue;
      flaws.push(`only for the mouse: ${describe(element)}`);
    }
    return flaws;
  }

  function pageFlaws() {
    const flaws = [];
    const { lang } = document.documentElement;
    if (!lang) flaws.push("no lang");
    if (!document.title.trim()) flaws.push("no title");
    for (const image of document.querySelectorAll("img:not([alt])"))
      flaws.push(`no alt text: ${image.src}`);
    const { scrollWidth } = document.documentElement;
    if (scrollWidth > innerWidth) {
      const wide = [...document.body.querySelectorAll("*")].filter(
        (element) => element.getBoundingClientRect().right > innerWidth + 1,
      );
      flaws.push(`${scrollWidth} pixels wide, of ${innerWidth}: ${wide.slice(-1).map(describe)}`);
    }
    return flaws;
  }
  globalThis.accessibility = { contrastFlaws, startTabbing, afterTab, keyboardFlaws, pageFlaws };
})();
