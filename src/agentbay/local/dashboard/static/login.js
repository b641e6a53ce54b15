// A login link has its ticket behind the "#", which browsers do not send, so that no server logs it.

const ticket = location.hash.slice(1);
if (ticket) {
  history.replaceState(null, "", location.pathname); // keep the ticket out of the history, too
  const form = document.getElementById("once");
  form.elements.ticket.value = ticket;
  form.submit();
}
