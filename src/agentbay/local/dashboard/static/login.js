// A link that logs in once has its ticket behind the "#": browsers send that to no server, and no log has it.

const ticket = location.hash.slice(1);
if (ticket) {
  history.replaceState(null, "", location.pathname); // nor does "back" lead to it
  const form = document.getElementById("once");
  form.elements.ticket.value = ticket;
  form.submit();
}
