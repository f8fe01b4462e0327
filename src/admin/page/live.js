"use strict";
(() => {
  const EVERY = 2000;
  const pause = document.createElement("button");
  pause.type = "button";
  let paused = false;
  const label = () => { pause.textContent = paused ? "Resume" : "Pause"; };
  pause.addEventListener("click", () => { paused = !paused; label(); });
  label();
  document.querySelector("header").append(pause);

  const isHeld = (part) =>
    part.contains(document.activeElement) && document.activeElement !== pause && document.activeElement.matches("a, button")
    || (!getSelection().isCollapsed && part.contains(getSelection().anchorNode));

  // Each part by itself: what a person holds, or has scrolled sideways, stays as it is.
  const swap = (fresh) => {
    for (const part of document.querySelectorAll("main > section")) {
      const next = fresh.getElementById(part.id);
      if (!next || isHeld(part) || next.innerHTML === part.innerHTML) continue;
      const aside = [...part.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box === document.activeElement]);
      part.replaceChildren(...next.childNodes);
      part.querySelectorAll(".scroll").forEach((box, at) => {
        if (!aside[at]) return;
        box.scrollLeft = aside[at][0];
        if (aside[at][1]) box.focus({ preventScroll: true });
      });
    }
    for (const name of [".state", ".about", ".alarm", "nav", "footer"]) {
      const [old, next] = [document.querySelector(name), fresh.querySelector(name)];
      if (old && next && !isHeld(old)) { old.className = next.className; old.replaceChildren(...next.childNodes); }
    }
  };

  const look = async () => {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(String(answer.status));
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      const state = document.querySelector(".state");
      state.className = "state bad";
      state.textContent = "not answering";
    }
  };

  const turn = () => { look().finally(() => setTimeout(turn, EVERY)); };
  setTimeout(turn, EVERY);
})();
