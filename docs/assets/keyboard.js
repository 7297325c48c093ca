// Let the keyboard reach the theme's menu and search on narrow screens.
const toggle = document.getElementById("__drawer");
const drawer = document.querySelector(".md-sidebar--primary");
const narrow = matchMedia("(max-width: 76.1875em)"); // below this, the theme hides the drawer

function update() {
  drawer.inert = narrow.matches && !toggle.checked; // else its links take the focus unseen
}
toggle.addEventListener("change", update);
narrow.addEventListener("change", update);
update();

for (const [id, name] of [["__drawer", "Menu"], ["__search", "Search"]]) {
  const button = document.querySelector(`.md-header__button[for=${id}]`);
  Object.assign(button, { tabIndex: 0, role: "button", ariaLabel: name });
  button.addEventListener("keydown", (event) => {
    if (event.key !== " ") return; // the theme listens to Enter
    event.preventDefault();
    button.click();
  });
}
