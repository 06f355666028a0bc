"""``SafetyMiddleware``: what a browser may load for a page, and how much it may send."""

from django.http import HttpResponse

MAX_BODY_BYTES = 512 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class SafetyMiddleware:
    """Refuse large bodies before they are read; let pages have scripts and styles of this site only."""

    def __init__(self, get_response):
        self._get_response = get_response

    def __call__(self, request):
        """Return the response, with its Content-Security-Policy."""
        if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
            text = f"Too much at once: {MAX_BODY_BYTES // 1024} KB is the limit."
            response = HttpResponse(text, content_type="text/plain", status=413)
        else:
            response = self._get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response
