// The page behind a login link: sends the code in the URL's fragment, then goes to the query page.
import { byId } from "./elements.js";
import { codeOf, logIn } from "./login.js";

async function enter(text) {
  byId("login-state").textContent = "Logging in …";
  byId("login-error").textContent = "";
  try {
    await logIn(text);
    location.replace("./");
  } catch (error) {
    byId("login-state").textContent = "";
    byId("login-error").textContent = error.message;
    byId("login-form").hidden = false;
    byId("login-code").focus();
  }
}

byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(byId("login-code").value);
});

// A link that is opened in a tab that shows this page already changes the fragment only.
addEventListener("hashchange", begin);

function begin() {
  const code = codeOf(location.hash);
  if (location.hash) history.replaceState(null, "", location.pathname); // the code stays in no history
  if (code) enter(code);
  else byId("login-form").hidden = false;
}

begin();
