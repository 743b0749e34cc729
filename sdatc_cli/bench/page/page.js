"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const clips = Object.keys(data.clips);
  if (!clips.length) return;

  // ---- what is looked at -------------------------------------------------------------------------------------------
  const fill = (select, names, chosen) => {
    select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  };
  const TRUTH = "ground truth";
  const versions = () => {
    const clip = data.clips[at("clip").value];
    return { ...clip.crf[at("crf").value], [TRUTH]: clip.truth };
  };
  const still = (name) => versions()[name]?.still || "";

  const showClip = () => {
    const names = Object.keys(versions());
    const keep = (id, fallback) => (names.includes(at(id).value) ? at(id).value : fallback);
    const measured = data.methods.filter((name) => names.includes(name));
    fill(at("left"), names, keep("left", measured.length > 1 ? measured[1] : names[0]));
    fill(at("right"), names, keep("right", measured[0] || TRUTH));
    showPair();
    showCrops();
    showProfiles();
  };

  // ---- the slider --------------------------------------------------------------------------------------------------
  let split = 0.5;
  const moveSplit = (share) => {
    split = Math.min(1, Math.max(0, share));
    at("over").style.clipPath = `inset(0 ${100 - 100 * split}% 0 0)`;
    at("handle").style.left = `${100 * split}%`;
    at("slide").value = Math.round(1000 * split);
  };
  const showPair = () => {
    at("over").src = still(at("left").value);
    at("under").src = still(at("right").value);
    moveSplit(split);
  };
  const share = (event) => {
    const box = at("stage").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let dragging = false;
  at("stage").addEventListener("pointerdown", (event) => {
    dragging = true;
    at("stage").setPointerCapture(event.pointerId);
    moveSplit(share(event)[0]);
    event.preventDefault();
  });
  at("stage").addEventListener("pointermove", (event) => {
    const [x, y] = share(event);
    if (dragging) moveSplit(x);
    focus(x, y);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    at("stage").addEventListener(end, () => { dragging = false; });
  }
  at("slide").addEventListener("input", (event) => moveSplit(event.target.value / 1000));

  // ---- synchronised crops ------------------------------------------------------------------------------------------
  const CROP = 200;
  let centre = [0.5, 0.5];
  const focus = (x, y) => {
    centre = [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))];
    placeCrops();
  };
  const showCrops = () => {
    at("crops").replaceChildren(...Object.keys(versions()).map((name) => {
      const figure = document.createElement("figure");
      const view = document.createElement("div");
      const label = document.createElement("figcaption");
      view.style.backgroundImage = `url("${still(name)}")`;
      view.addEventListener("pointermove", (event) => {
        if (!event.buttons) return;
        const zoom = Number(at("zoom").value);
        focus(centre[0] - event.movementX / zoom / at("under").naturalWidth,
              centre[1] - event.movementY / zoom / at("under").naturalHeight);
      });
      label.textContent = name;
      figure.append(view, label);
      return figure;
    }));
    placeCrops();
  };
  const placeCrops = () => {
    const zoom = Number(at("zoom").value);
    const [width, height] = [at("under").naturalWidth * zoom, at("under").naturalHeight * zoom];
    const offset = (middle, full) => Math.max(Math.min(0, CROP / 2 - middle * full), Math.min(0, CROP - full));
    for (const view of at("crops").querySelectorAll("div")) {
      view.style.backgroundSize = `${width}px ${height}px`;
      view.style.backgroundPosition = `${offset(centre[0], width)}px ${offset(centre[1], height)}px`;
    }
  };
  at("under").addEventListener("load", placeCrops);

  // ---- temporal profiles -------------------------------------------------------------------------------------------
  const showProfiles = () => {
    const shown = Object.entries(versions()).filter(([, kinds]) => kinds.profile);
    at("rows").replaceChildren(...shown.map(([name, kinds]) => {
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      const label = document.createElement("figcaption");
      image.src = kinds.profile;
      image.alt = label.textContent = name;
      figure.append(label, image);
      return figure;
    }));
  };

  fill(at("clip"), clips, clips[0]);
  fill(at("crf"), Object.keys(data.clips[clips[0]].crf), undefined);
  for (const id of ["clip", "crf"]) at(id).addEventListener("change", showClip);
  for (const id of ["left", "right"]) at(id).addEventListener("change", showPair);
  at("zoom").addEventListener("change", placeCrops);
  showClip();

  // ---- blind vote --------------------------------------------------------------------------------------------------
  const shuffled = (items) => items.map((item) => [Math.random(), item]).sort((a, b) => a[0] - b[0]).map((p) => p[1]);
  const pairs = [];
  for (const clip of clips) {
    for (const [crf, found] of Object.entries(data.clips[clip].crf)) {
      const names = data.methods.filter((name) => found[name]);
      for (let i = 0; i < names.length; i++) {
        for (let j = i + 1; j < names.length; j++) pairs.push({ clip, crf: Number(crf), names: [names[i], names[j]] });
      }
    }
  }
  const votes = [];
  let queue = [];
  let current = null;
  let since = 0;
  const next = () => {
    if (!queue.length) queue = shuffled(pairs);
    const pair = queue.pop();
    const [first, second] = shuffled(pair.names);
    current = { clip: pair.clip, crf: pair.crf, first, second };
    const found = data.clips[pair.clip].crf[String(pair.crf)];
    for (const side of ["first", "second"]) at(side).src = found[current[side]].loop || found[current[side]].still;
    since = performance.now();
  };
  const vote = (choice) => {
    if (!current) return;
    const preferred = choice === "same" ? null : current[choice];
    votes.push({ ...current, choice, preferred, milliseconds: Math.round(performance.now() - since),
                 at: new Date().toISOString() });
    at("download").disabled = false;
    at("count").textContent = `${votes.length} vote${votes.length === 1 ? "" : "s"}, ${pairs.length} pairs in all`;
    next();
  };
  const tally = () => {
    const counts = {};
    for (const { first, second, preferred } of votes) {
      const key = [first, second].sort().join(" or ");
      counts[key] ??= {};
      const name = preferred ?? "no difference";
      counts[key][name] = (counts[key][name] ?? 0) + 1;
    }
    return counts;
  };
  const download = () => {
    const told = { report: data.title, created: data.created, votes, tally: tally() };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(told, null, 2)], { type: "application/json" }));
    link.download = "votes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    at("tally").replaceChildren(...Object.entries(told.tally).map(([pair, counts]) => {
      const item = document.createElement("li");
      item.textContent = `${pair}: ` + Object.entries(counts).map(([name, n]) => `${name} ${n}`).join(", ");
      return item;
    }));
  };
  for (const button of document.querySelectorAll("[data-vote]")) {
    button.addEventListener("click", () => vote(button.dataset.vote));
  }
  at("download").addEventListener("click", download);
  if (pairs.length) next();
  else at("pair").textContent = "A vote needs at least two methods.";
})();
