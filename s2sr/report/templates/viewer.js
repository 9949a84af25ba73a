(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const layers = [...document.querySelectorAll("#layers img")];
  const [stage, under, upper, over, divider, slider] = ["stage", "under", "upper", "over", "divider", "slider"].map($);
  const finest = layers.reduce((a, b) => (a.width * a.height > b.width * b.height ? a : b));
  const shape = { width: +finest.getAttribute("width"), height: +finest.getAttribute("height") };
  const view = { zoom: 1, x: 0, y: 0 }; // of the upper left corner, stage pixels

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  function draw() {
    const { clientWidth: width, clientHeight: height } = stage;
    view.x = clamp(view.x, width * (1 - view.zoom), 0);
    view.y = clamp(view.y, height * (1 - view.zoom), 0);
    const transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    under.style.transform = upper.style.transform = transform;
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    stage.style.touchAction = view.zoom > 1 ? "none" : "pan-y"; // a finger scrolls the page where there is nothing to move
    divider.style.left = `${slider.value}%`;
    $("zoom").value = `${view.zoom < 10 ? view.zoom.toFixed(1) : Math.round(view.zoom)}×`;
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const before = view.zoom;
    view.zoom = clamp(before * factor, 1, 64);
    view.x = x - ((x - view.x) * view.zoom) / before;
    view.y = y - ((y - view.y) * view.zoom) / before;
    draw();
  }

  function move(x, y) {
    view.x += x;
    view.y += y;
    draw();
  }

  function choose() {
    const chosen = ["left", "right"].map((side) => layers[$(side).selectedIndex]);
    [upper, under].forEach((image, k) => {
      image.src = chosen[k].src;
      image.alt = chosen[k].alt;
    });
    ["left-facts", "right-facts"].forEach((id, k) => {
      const caption = chosen[k].parentElement.querySelector("figcaption");
      $(id).replaceChildren(...[...caption.childNodes].map((node) => node.cloneNode(true)));
    });
    layers.forEach((image) => image.classList.toggle("chosen", chosen.includes(image)));
  }

  function shapeStage() {
    const room = Math.min(stage.parentElement.clientWidth, (innerHeight * 0.8 * shape.width) / shape.height);
    stage.style.width = slider.style.width = `${room}px`;
    stage.style.height = `${(room * shape.height) / shape.width}px`;
    draw();
  }

  for (const side of ["left", "right"]) {
    $(side).append(...layers.map((image) => new Option(image.alt)));
    $(side).addEventListener("change", choose);
  }
  const place = layers.findIndex((image) => image.alt === "Bicubic of the mean");
  $("left").selectedIndex = Math.max(0, place);
  $("right").selectedIndex = Math.min(layers.length - 1, place + 1);

  slider.addEventListener("input", draw);
  $("in").addEventListener("click", () => zoom(1.5));
  $("out").addEventListener("click", () => zoom(1 / 1.5));
  $("fit").addEventListener("click", () => zoom(0));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const corner = stage.getBoundingClientRect();
    zoom(2 ** (-event.deltaY / 300), event.clientX - corner.left, event.clientY - corner.top);
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const step = 40;
    const action = {
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
      ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0),
      ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
    }[event.key];
    if (action && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      action();
    }
  });

  const fingers = new Map(); // pointers on the stage: one moves, two zoom, on the divider it is dragged
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, border: divider.contains(event.target) });
  });
  stage.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const corner = stage.getBoundingClientRect();
    if (last.border) {
      slider.value = (100 * (event.clientX - corner.left)) / corner.width;
      draw();
    } else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const distance = (p) => Math.hypot(p.x - other.x, p.y - other.y);
        const now = { x: event.clientX, y: event.clientY };
        zoom(distance(now) / Math.max(1, distance(last)), other.x - corner.left, other.y - corner.top);
      } else move(event.clientX - last.x, event.clientY - last.y);
    }
    fingers.set(event.pointerId, { ...last, x: event.clientX, y: event.clientY });
  });
  for (const end of ["pointerup", "pointercancel"])
    stage.addEventListener(end, (event) => fingers.delete(event.pointerId));

  $("viewer").hidden = false;
  addEventListener("resize", shapeStage);
  choose();
  shapeStage();
})();
